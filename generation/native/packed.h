/* Products with packed matrices, of 8 or 4 bits, and rows of x in int8.
 *
 * 16 rows lie side by side, four columns at a time, so that one instruction multiplies 64 weights
 * with four numbers: bytes w + 128, or w + 8 in half bytes, the columns of the low halves 32 before
 * those of the high ones. A row of x has a scale for every 64 numbers, and products are whole
 * numbers, exact on every CPU.
 */
#ifndef JANUS_PACKED_H
#define JANUS_PACKED_H

#include "common.h"

typedef struct { /* n rows of a matrix */
    const void *weight;
    const void *scale; /* INT8: fp32 [n]; INT4: bfloat16 [n/16, k/64, 16]; else null */
    int64_t n;
} Piece;

/* Bytes of a row of x as a kind of matrix reads it: numbers, scales, starts of sums. */
static inline int64_t ready_size(int64_t k) {
    int64_t wide = whole(k, GROUP);
    return whole(2 * wide + wide / GROUP * 8, 64);
}

/* A row of x in int8; zero: what stands for 0 in the matrix. */
EVERY_CPU static void prepare_packed(int zero, const float *x, char *ready, int64_t k) {
    int64_t wide = whole(k, GROUP), groups = wide / GROUP;
    int8_t *to = (int8_t *)ready;
    float *scales = (float *)(ready + wide);
    int32_t *starts = (int32_t *)(scales + groups);
    for (int64_t g = 0; g < groups; g++) {
        int64_t base = g * GROUP, real = k - base < GROUP ? k - base : GROUP;
        float most = 0;
        for (int64_t i = 0; i < real; i++) {
            float a = fabsf(x[base + i]);
            most = a > most || isnan(a) ? a : most;
        }
        float times = most > 0 ? 127.0f / most : 0.0f;
        int32_t sum = 0;
        for (int64_t i = 0; i < real; i++) {
            int32_t v = (int32_t)rintf(x[base + i] * times);
            to[base + i] = (int8_t)v;
            sum += v;
        }
        for (int64_t i = real; i < GROUP; i++) to[base + i] = 0;
        scales[g] = most / 127.0f; /* NaN and infinity stay such, and are told of */
        starts[g] = -zero * sum;
    }
}

#ifdef X86
/* R rows and 16 rows of a packed matrix. */
V512 INLINE void packed512(const int R, int four, const uint8_t *w, const void *scale,
                           const char *ready, int64_t step, float *y, int64_t wide, int64_t k,
                           int64_t count) {
    const __mmask16 real = (__mmask16)((1u << count) - 1);
    int64_t padded = whole(k, GROUP), groups = padded / GROUP;
    __m512 sum[8];
    UNROLL
    for (int r = 0; r < R; r++) sum[r] = _mm512_setzero_ps();
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t g = 0; g < groups; g++) {
        __m512i acc[8], other[8];
        UNROLL
        for (int r = 0; r < R; r++) {
            const int32_t *starts = (const int32_t *)(ready + r * step + padded) + groups;
            acc[r] = _mm512_set1_epi32(starts[g]);
            other[r] = _mm512_setzero_si512();
        }
        UNROLL
        for (int q = 0; q < 8; q++) {
            __m512i a, b; /* of one after another, so that the CPU sees one stream */
            int near = four ? q : 2 * q, far = four ? q + 8 : 2 * q + 1;
            if (four) {
                __m512i both = _mm512_loadu_si512(w + q * 64);
                a = _mm512_and_si512(both, low);
                b = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            } else {
                a = _mm512_loadu_si512(w + near * 64);
                b = _mm512_loadu_si512(w + far * 64);
            }
            UNROLL
            for (int r = 0; r < R; r++) {
                const int32_t *x = (const int32_t *)(ready + r * step + g * GROUP);
                acc[r] = _mm512_dpbusd_epi32(acc[r], a, _mm512_set1_epi32(x[near]));
                other[r] = _mm512_dpbusd_epi32(other[r], b, _mm512_set1_epi32(x[far]));
            }
        }
        w += four ? 512 : 1024;
        __m512 times = _mm512_set1_ps(1);
        if (four)
            times = _mm512_castsi512_ps(_mm512_slli_epi32(
                _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)scale + g)), 16));
        UNROLL
        for (int r = 0; r < R; r++) {
            const float *scales = (const float *)(ready + r * step + padded);
            __m512 found = _mm512_cvtepi32_ps(_mm512_add_epi32(acc[r], other[r]));
            __m512 by = _mm512_set1_ps(scales[g]);
            if (four) by = _mm512_mul_ps(by, times);
            sum[r] = _mm512_fmadd_ps(found, by, sum[r]);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        if (!four) sum[r] = _mm512_mul_ps(sum[r], _mm512_maskz_loadu_ps(real, scale));
        _mm512_mask_storeu_ps(y + r * wide, real, sum[r]);
    }
}

/* As packed512, in halves. */
V256 INLINE void packed256(const int R, int four, const uint8_t *w, const void *scale,
                           const char *ready, int64_t step, float *y, int64_t wide, int64_t k,
                           int64_t real) {
    int64_t padded = whole(k, GROUP), groups = padded / GROUP;
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    const __m256i even = _mm256_set1_epi32(0x00ff00ff);
    __m256 sum[4][2];
    UNROLL
    for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g++) {
        __m256i acc[4][2];
        UNROLL
        for (int r = 0; r < R; r++) {
            const int32_t *starts = (const int32_t *)(ready + r * step + padded) + groups;
            acc[r][0] = acc[r][1] = _mm256_set1_epi32(starts[g]);
        }
        UNROLL
        for (int part = 0; part < 2; part++) {
            __m256i some[4][2]; /* of half bytes: 8 times 15 · 127 · 2 fits 16 bits */
            UNROLL
            for (int r = 0; r < R; r++) some[r][0] = some[r][1] = _mm256_setzero_si256();
            for (int q = 0; q < 8; q++) {
                __m256i v[2], odd[2];
                const __m256i *from = (const __m256i *)(w + (four ? q : q + 8 * part) * 64);
                UNROLL
                for (int h = 0; h < 2; h++) {
                    v[h] = _mm256_loadu_si256(from + h);
                    odd[h] = _mm256_srli_epi16(v[h], 8);
                    if (four) v[h] = _mm256_and_si256(part ? _mm256_srli_epi16(v[h], 4) : v[h], low);
                    else v[h] = _mm256_and_si256(v[h], even);
                }
                UNROLL
                for (int r = 0; r < R; r++) {
                    const int32_t *x = (const int32_t *)(ready + r * step + g * GROUP);
                    __m256i a = _mm256_set1_epi32(x[q + 8 * part]);
                    __m256i a0 = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
                    __m256i a1 = _mm256_srai_epi16(a, 8);
                    UNROLL
                    for (int h = 0; h < 2; h++) {
                        if (four)
                            some[r][h] = _mm256_add_epi16(some[r][h], _mm256_maddubs_epi16(v[h], a));
                        else
                            acc[r][h] = _mm256_add_epi32(
                                acc[r][h], _mm256_add_epi32(_mm256_madd_epi16(v[h], a0),
                                                            _mm256_madd_epi16(odd[h], a1)));
                    }
                }
            }
            UNROLL
            for (int r = 0; four && r < R; r++) {
                UNROLL
                for (int h = 0; h < 2; h++)
                    acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(some[r][h], ones));
            }
        }
        w += four ? 512 : 1024;
        UNROLL
        for (int h = 0; h < 2; h++) {
            __m256 times = _mm256_set1_ps(1);
            if (four) times = eight(scale, g * CHANNELS + h * 8, 1);
            UNROLL
            for (int r = 0; r < R; r++) {
                __m256 by = _mm256_set1_ps(((const float *)(ready + r * step + padded))[g]);
                if (four) by = _mm256_mul_ps(by, times);
                sum[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][h]), by, sum[r][h]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        float found[CHANNELS];
        _mm256_storeu_ps(found, sum[r][0]);
        _mm256_storeu_ps(found + 8, sum[r][1]);
        for (int64_t c = 0; c < real; c++)
            y[r * wide + c] = four ? found[c] : found[c] * ((const float *)scale)[c];
    }
}

/* Blocks of R rows, as many as there are. */
#define TAKE(BLOCK, R)                                                                        \
    for (; r + R <= rows; r += R)                                                             \
        if (four) BLOCK(R, 1, w, scale, ready + r * step, step, y + r * wide, wide, k, real); \
        else BLOCK(R, 0, w, scale, ready + r * step, step, y + r * wide, wide, k, real);

V512 static void packed_avx512(int four, const uint8_t *w, const void *scale, const char *ready,
                               int64_t step, float *y, int64_t rows, int64_t wide, int64_t k,
                               int64_t real) {
    int64_t r = 0;
    TAKE(packed512, 8)
    TAKE(packed512, 4)
    TAKE(packed512, 2)
    TAKE(packed512, 1)
}

V256 static void packed_avx2(int four, const uint8_t *w, const void *scale, const char *ready,
                             int64_t step, float *y, int64_t rows, int64_t wide, int64_t k,
                             int64_t real) {
    int64_t r = 0;
    TAKE(packed256, 4)
    TAKE(packed256, 2)
    TAKE(packed256, 1)
}
#undef TAKE
#endif

EVERY_CPU static void groups_plain(int four, const uint8_t *w, const int8_t *x, int32_t start,
                         int32_t *sums) {
    for (int c = 0; c < CHANNELS; c++) sums[c] = start;
    for (int i = 0; i < GROUP; i++)
        for (int c = 0; c < CHANNELS; c++) {
            int q = i / 4, at = c * 4 + i % 4;
            int32_t v = four ? w[q % 8 * 64 + at] >> (q < 8 ? 0 : 4) & 15 : w[q * 64 + at];
            sums[c] += v * x[i];
        }
}

static void packed(int64_t kind, int64_t level, const Piece *piece, const char *ready,
                   int64_t step, float *y, int64_t rows, int64_t wide, int64_t k, int64_t from,
                   int64_t to) {
    int64_t padded = whole(k, GROUP), groups = padded / GROUP;
    int four = kind == INT4;
    int64_t size = four ? GROUP / 2 * CHANNELS : GROUP * CHANNELS;
    for (int64_t j = from; j < to; j += CHANNELS) {
        int64_t real = piece->n - j < CHANNELS ? piece->n - j : CHANNELS;
        const uint8_t *w = (const uint8_t *)piece->weight + j / CHANNELS * groups * size;
        const char *scale = (const char *)piece->scale + (four ? 2 * j * groups : 4 * j);
#ifdef X86
        if ((level & 3) == AVX512) {
            packed_avx512(four, w, scale, ready, step, y + j, rows, wide, k, real);
            continue;
        }
        if ((level & 3) == AVX2) {
            packed_avx2(four, w, scale, ready, step, y + j, rows, wide, k, real);
            continue;
        }
#endif
        for (int64_t r = 0; r < rows; r++) {
            const int8_t *x = (const int8_t *)ready + r * step;
            const float *scales = (const float *)(x + padded);
            const int32_t *starts = (const int32_t *)(scales + groups);
            float sum[CHANNELS] = {0};
            for (int64_t g = 0; g < groups; g++) {
                int32_t sums[CHANNELS];
                groups_plain(four, w + g * size, x + g * GROUP, starts[g], sums);
                const uint16_t *by = (const uint16_t *)scale + g * CHANNELS;
                for (int c = 0; c < CHANNELS; c++)
                    sum[c] += (float)sums[c] * (four ? scales[g] * widen(by[c]) : scales[g]);
            }
            for (int64_t c = 0; c < real; c++)
                y[r * wide + j + c] = four ? sum[c] : sum[c] * ((const float *)scale)[c];
        }
    }
}

#endif
