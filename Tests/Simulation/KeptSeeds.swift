/// KeptSeeds — for each rule of coherence the first seed that fails without it. `scripts/mutate --write` writes the list
/// anew, for a seed means what it does only as long as what is drawn from it stays the same.
let keptSeeds: [(seed: UInt64, without: String)] = [
    (1, "databases: an announced FLUSHALL drops nothing")
]
