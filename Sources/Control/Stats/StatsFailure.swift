/// Why there are no numbers to show: a sentence with cause and remedy.
struct StatsFailure: Error, Equatable {
    var sentence: String
}
