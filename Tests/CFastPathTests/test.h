/* test — the C tests' small frame: TEST("a sentence") { … EXPECT(…); } in any file of this folder.
 *
 * Tests register themselves before main; main.c runs them in order and prints a line that counts them. */
#ifndef FERRITE_TEST_H
#define FERRITE_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct test {
    const char *sentence;
    const char *file;
    void (*run)(void);
    struct test *next;
};

void test_register(struct test *test);
void test_failed(const char *file, int line, const char *expression);

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(text)                                                                        \
    static void TEST_JOIN(test_run_, __LINE__)(void);                                     \
    __attribute__((constructor)) static void TEST_JOIN(test_add_, __LINE__)(void) {       \
        static struct test test = {text, __FILE__, TEST_JOIN(test_run_, __LINE__), NULL}; \
        test_register(&test);                                                             \
    }                                                                                     \
    static void TEST_JOIN(test_run_, __LINE__)(void)

/* Notes a failure and goes on. */
#define EXPECT(condition)                                              \
    do {                                                               \
        if (!(condition)) test_failed(__FILE__, __LINE__, #condition); \
    } while (0)

#endif
