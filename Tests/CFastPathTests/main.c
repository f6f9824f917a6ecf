/* main — runs the registered C tests; an argument picks those whose sentence or file holds it. */
#include <stdlib.h>

#include "test.h"

static struct test *first, *last;
static int failures;

void test_register(struct test *test) {
    if (last) last->next = test;
    else first = test;
    last = test;
}

void test_failed(const char *file, int line, const char *expression) {
    failures++;
    fprintf(stderr, "%s:%d: expected %s\n", file, line, expression);
}

int main(int argc, char **argv) {
    int passed = 0, failed = 0;
    for (struct test *test = first; test; test = test->next) {
        if (argc > 1 && !strstr(test->sentence, argv[1]) && !strstr(test->file, argv[1])) continue;
        int before = failures;
        test->run();
        if (failures == before) passed++;
        else {
            failed++;
            fprintf(stderr, "FAILED: %s\n", test->sentence);
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
