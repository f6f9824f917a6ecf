/* hash — a fast 64-bit hash of a name, with secrets drawn from the store's seed.
 *
 * The construction (multiply 64 x 64 to 128, fold by xor) is that of wyhash by Wang Yi, public domain
 * (github.com/wangyi-fudan/wyhash), written anew. There the secrets are public constants, and a block that equals one
 * makes a product zero whatever the seed; here all of them are secret. */
#ifndef FERRITE_STORE_HASH_H
#define FERRITE_STORE_HASH_H

#include <stdint.h>
#include <string.h>

struct hash_secrets {
    uint64_t words[4];
};

/* splitmix64 (Sebastiano Vigna, public domain): the next of a sequence of well-mixed numbers. */
static inline uint64_t hash_mix_next(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t hash_read8(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

static inline uint64_t hash_read4(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, 4);
    return word;
}

static inline uint64_t hash_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_bytes(const struct hash_secrets *secrets, const uint8_t *bytes, uint32_t length) {
    const uint64_t *secret = secrets->words;
    uint64_t state = secret[0];
    uint64_t a, b;
    if (length <= 16) {
        if (length >= 8) {
            a = hash_read8(bytes);
            b = hash_read8(bytes + length - 8);
        } else if (length >= 4) {
            a = hash_read4(bytes);
            b = hash_read4(bytes + length - 4);
        } else if (length > 0) {
            a = (uint64_t)bytes[0] << 16 | (uint64_t)bytes[length >> 1] << 8 | bytes[length - 1];
            b = 0;
        } else {
            a = b = 0;
        }
    } else {
        uint32_t rest = length;
        if (rest > 48) {
            uint64_t second = state, third = state;
            do {
                state = hash_fold(hash_read8(bytes) ^ secret[1], hash_read8(bytes + 8) ^ state);
                second = hash_fold(hash_read8(bytes + 16) ^ secret[2], hash_read8(bytes + 24) ^ second);
                third = hash_fold(hash_read8(bytes + 32) ^ secret[3], hash_read8(bytes + 40) ^ third);
                bytes += 48;
                rest -= 48;
            } while (rest > 48);
            state ^= second ^ third;
        }
        while (rest > 16) {
            state = hash_fold(hash_read8(bytes) ^ secret[1], hash_read8(bytes + 8) ^ state);
            bytes += 16;
            rest -= 16;
        }
        /* The last sixteen bytes, which may overlap what was read. */
        a = hash_read8(bytes + rest - 16);
        b = hash_read8(bytes + rest - 8);
    }
    state = hash_fold(a ^ secret[2], b ^ state);
    return hash_fold(state ^ secret[3], length ^ secret[1]);
}

#endif
