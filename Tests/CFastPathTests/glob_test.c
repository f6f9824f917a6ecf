/* glob — Redis's patterns: the same answers as stringmatchlen of redis 7.0 (Tests/e2e asks a real one by KEYS). */
#include "base/glob.h"

#include "test.h"

static bool matches(const char *pattern, const char *text) {
    return glob_matches((const uint8_t *)pattern, strlen(pattern), (const uint8_t *)text, strlen(text));
}

TEST("glob: plain text, stars and question marks") {
    EXPECT(matches("", "") && !matches("", "a") && !matches("a", ""));
    EXPECT(matches("*", "") && matches("*", "anything") && matches("**", "a"));
    EXPECT(matches("user:*", "user:1") && matches("user:*", "user:") && !matches("user:*", "User:1"));
    EXPECT(matches("*:name", "user:1:name") && !matches("*:name", "user:1:names"));
    EXPECT(matches("a*b*c", "aXXbYYc") && matches("a*b*c", "abbc") && !matches("a*b*c", "acb"));
    EXPECT(matches("?", "a") && !matches("?", "") && !matches("?", "ab") && matches("a?c", "abc"));
    EXPECT(matches("*a", "aaaa") && matches("*ab", "aab"));
}

TEST("glob: sets, ranges, negation and escapes") {
    EXPECT(matches("[abc]", "b") && !matches("[abc]", "d") && !matches("[abc]", ""));
    EXPECT(matches("[a-c]x", "bx") && matches("[c-a]x", "bx") && !matches("[a-c]x", "dx"));
    EXPECT(matches("[^a-c]", "d") && !matches("[^a-c]", "b"));
    EXPECT(matches("[\\]]", "]") && matches("[a\\-z]", "-") && !matches("[a\\-z]", "b"));
    EXPECT(matches("\\*", "*") && !matches("\\*", "a") && matches("a\\?", "a?"));
    EXPECT(matches("a\\", "a\\"));
    EXPECT(!matches("[]", "a") && matches("[^]", "a"));
}

TEST("glob: what is not closed ends with the pattern") {
    EXPECT(matches("[abc", "b") && !matches("[abc", "d") && matches("[^abc", "d"));
    EXPECT(!matches("[", "[") && matches("[^", "x"));
}

TEST("glob: a hostile pattern takes no longer than the product of the lengths") {
    char pattern[400], text[4000];
    for (size_t i = 0; i + 1 < sizeof pattern; i++) pattern[i] = i % 2 ? 'a' : '*';
    memset(text, 'a', sizeof text);
    pattern[sizeof pattern - 1] = 'b';
    EXPECT(!glob_matches((const uint8_t *)pattern, sizeof pattern, (const uint8_t *)text, sizeof text));
}
