/* Products with a matrix: y[r, j] = w[j] . x[r] (+ bias[j]), few rows, every weight read once.
 *
 * A result depends on its own row and weights alone: the order of a sum is the same for any number
 * of rows and threads. bfloat16 and fp32 matrices are read row-major, as they lie in a file. Packed
 * ones hold 16 rows side by side, four columns at a time, so that one instruction multiplies 64
 * weights with four numbers: bytes w + 128, or w + 8 in half bytes, the columns of the low halves
 * 32 before those of the high ones. A row of x is then int8 with a scale for every 64 numbers, and
 * products are whole numbers, exact on every CPU.
 */
#ifndef JANUS_LINEAR_H
#define JANUS_LINEAR_H

#include "common.h"
#ifdef X86
#include <immintrin.h>
#endif

enum { PLAIN, AVX2, AVX512 };              /* instructions; PLAIN: what the compiler makes of it */

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

static inline int dots_halves(int64_t kind, int64_t level) {
    return kind == BF16_BOTH && (level & 4); /* bit 2: the CPU multiplies bfloat16 */
}

/* Get a row ready for linear(); a row of BF16_BOTH may be rounded where it stands. */
EVERY_CPU static void prepare(int64_t kind, int64_t level, float *x, char *ready, int64_t k) {
    if (kind == BF16_BOTH) {
        uint16_t *to = (uint16_t *)ready;
        if (dots_halves(kind, level))
            for (int64_t i = 0; i < k; i++) to[i] = narrow(x[i]);
        else
            for (int64_t i = 0; i < k; i++) x[i] = widen(narrow(x[i]));
    }
    if (kind < INT8) return;
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
        starts[g] = -(kind == INT8 ? 128 : 8) * sum;
    }
}

/* R rows of x and C of the matrix. */
INLINE void block(const int R, const int C, int half, const void *w, const float *x, float *y,
                  int64_t wide, int64_t k) {
    Lanes sum[4][4] = {{{0}}};
    int64_t i = 0;
    for (; i + WIDTH <= k; i += WIDTH) {
        Lanes a[4];
        UNROLL
        for (int c = 0; c < C; c++) a[c] = lanes(w, c * k + i, half);
        UNROLL
        for (int r = 0; r < R; r++) {
            Lanes b = *(const Lanes *)(x + r * k + i);
            UNROLL
            for (int c = 0; c < C; c++) sum[r][c] += a[c] * b;
        }
    }
    float rest[4][4] = {{0}};
    for (; i < k; i++)
        for (int c = 0; c < C; c++)
            for (int r = 0; r < R; r++) rest[r][c] += number(w, c * k + i, half) * x[r * k + i];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < C; c++) y[r * wide + c] = total(sum[r][c]) + rest[r][c];
    }
}

INLINE void rows_of(const int C, int half, const void *w, const float *x, float *y, int64_t rows,
                    int64_t wide, int64_t k) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) block(4, C, half, w, x + r * k, y + r * wide, wide, k);
    if (r + 2 <= rows) block(2, C, half, w, x + r * k, y + r * wide, wide, k), r += 2;
    if (r < rows) block(1, C, half, w, x + r * k, y + r * wide, wide, k);
}

EVERY_CPU static void plain(int half, const void *weight, const float *x, float *y, int64_t rows,
                  int64_t wide, int64_t k, int64_t from, int64_t to) {
    int64_t j = from;
    const char *w = (const char *)weight + j * k * (half ? 2 : 4);
#define TAKE(C, HALF, SIZE) \
    for (; j + C <= to; j += C, w += C * k * SIZE) rows_of(C, HALF, w, x, y + j, rows, wide, k);
    if (half) {
        TAKE(4, 1, 2)
        TAKE(1, 1, 2)
    } else {
        TAKE(4, 0, 4)
        TAKE(1, 0, 4)
    }
#undef TAKE
}

#ifdef X86
#define V512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define B512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define V256 __attribute__((target("avx2,fma")))

/* Eight numbers, widened by one instruction, which compilers do not find. */
V256 INLINE __m256 eight(const void *p, int64_t at, int half) {
    if (!half) return _mm256_loadu_ps((const float *)p + at);
    __m128i v = _mm_loadu_si128((const __m128i *)((const uint16_t *)p + at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* R rows of x and C of the matrix, as block() in no more than 16 registers. ahead: fetch what is
 * read after it; the short rows of small models end before a CPU sees where they lead. */
V256 INLINE void tile(const int R, const int C, int ahead, int half, const void *w, const float *x,
                      float *y, int64_t wide, int64_t k) {
    __m256 sum[4][4];
    int64_t i = 0;
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < C; c++) sum[r][c] = _mm256_setzero_ps();
    }
    for (; i + WIDTH <= k; i += WIDTH) {
        __m256 a[4];
        if (ahead) __builtin_prefetch((const char *)w + 2048 + i * C * (half ? 2 : 4));
        UNROLL
        for (int c = 0; c < C; c++) a[c] = eight(w, c * k + i, half);
        UNROLL
        for (int r = 0; r < R; r++) {
            __m256 b = _mm256_loadu_ps(x + r * k + i);
            UNROLL
            for (int c = 0; c < C; c++) sum[r][c] = _mm256_fmadd_ps(a[c], b, sum[r][c]);
        }
    }
    float rest[4][4] = {{0}};
    for (; i < k; i++)
        for (int c = 0; c < C; c++)
            for (int r = 0; r < R; r++) rest[r][c] += number(w, c * k + i, half) * x[r * k + i];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < C; c++) y[r * wide + c] = total((Lanes)sum[r][c]) + rest[r][c];
    }
}

V256 INLINE void tiles(const int C, int half, const void *w, const float *x, float *y, int64_t rows,
                       int64_t wide, int64_t k) {
    int64_t r = 0;
    if (rows >= 4) tile(4, C, 1, half, w, x, y, wide, k), r = 4; /* the rest finds them near */
    for (; r + 4 <= rows; r += 4) tile(4, C, 0, half, w, x + r * k, y + r * wide, wide, k);
    if (r + 2 <= rows) tile(2, C, 1, half, w, x + r * k, y + r * wide, wide, k), r += 2;
    if (r < rows) tile(1, C, 1, half, w, x + r * k, y + r * wide, wide, k);
}

V256 static void plain_avx2(int half, const void *weight, const float *x, float *y, int64_t rows,
                            int64_t wide, int64_t k, int64_t from, int64_t to) {
    int64_t j = from;
    const char *w = (const char *)weight + j * k * (half ? 2 : 4);
#define TAKE(C, HALF, SIZE) \
    for (; j + C <= to; j += C, w += C * k * SIZE) tiles(C, HALF, w, x, y + j, rows, wide, k);
    if (half) {
        if (rows >= 4) { TAKE(3, 1, 2) }
        else { TAKE(4, 1, 2) }
        TAKE(1, 1, 2)
    } else {
        if (rows >= 4) { TAKE(3, 0, 4) }
        else { TAKE(4, 0, 4) }
        TAKE(1, 0, 4)
    }
#undef TAKE
}

B512 INLINE void halves(const int R, const int C, const uint16_t *w, const uint16_t *x,
                        int64_t step, float *y, int64_t wide, int64_t k) {
    __m512 sum[4][4];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < C; c++) sum[r][c] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < k; i += 32) {
        __mmask32 real = k - i < 32 ? (__mmask32)((1u << (k - i)) - 1) : 0xffffffffu;
        __m512bh a[4];
        UNROLL
        for (int c = 0; c < C; c++)
            a[c] = (__m512bh)_mm512_maskz_loadu_epi16(real, w + c * k + i);
        UNROLL
        for (int r = 0; r < R; r++) {
            __m512bh b = (__m512bh)_mm512_maskz_loadu_epi16(real, x + r * step + i);
            UNROLL
            for (int c = 0; c < C; c++) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], a[c], b);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < C; c++) y[r * wide + c] = _mm512_reduce_add_ps(sum[r][c]);
    }
}

B512 INLINE void halves_of(const int C, const uint16_t *w, const char *ready, int64_t step,
                           float *y, int64_t rows, int64_t wide, int64_t k) {
    int64_t r = 0, s = step / 2;
    const uint16_t *x = (const uint16_t *)ready;
    for (; r + 4 <= rows; r += 4) halves(4, C, w, x + r * s, s, y + r * wide, wide, k);
    if (r + 2 <= rows) halves(2, C, w, x + r * s, s, y + r * wide, wide, k), r += 2;
    if (r < rows) halves(1, C, w, x + r * s, s, y + r * wide, wide, k);
}

B512 static void bf16_avx512(const void *weight, const char *ready, int64_t step, float *y,
                             int64_t rows, int64_t wide, int64_t k, int64_t from, int64_t to) {
    const uint16_t *w = weight;
    int64_t j = from;
    /* Few rows: one stream of weights is read faster than four. */
    for (; rows > 2 && j + 4 <= to; j += 4) halves_of(4, w + j * k, ready, step, y + j, rows, wide, k);
    for (; j < to; j++) halves_of(1, w + j * k, ready, step, y + j, rows, wide, k);
}

/* R rows and 16 rows of a packed matrix. */
V512 INLINE void packed512(const int R, int four, const uint8_t *w, const void *scale,
                           const char *ready, int64_t step, float *y, int64_t wide, int64_t k,
                           __mmask16 real) {
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

V512 static void packed_avx512(int four, const uint8_t *w, const void *scale, const char *ready,
                               int64_t step, float *y, int64_t rows, int64_t wide, int64_t k,
                               __mmask16 real) {
    int64_t r = 0;
#define TAKE(R)                                                                                   \
    for (; r + R <= rows; r += R)                                                                 \
        if (four) packed512(R, 1, w, scale, ready + r * step, step, y + r * wide, wide, k, real); \
        else packed512(R, 0, w, scale, ready + r * step, step, y + r * wide, wide, k, real);
    TAKE(8)
    TAKE(4)
    TAKE(2)
    TAKE(1)
#undef TAKE
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

V256 static void packed_avx2(int four, const uint8_t *w, const void *scale, const char *ready,
                             int64_t step, float *y, int64_t rows, int64_t wide, int64_t k,
                             int64_t real) {
    int64_t r = 0;
#define TAKE(R)                                                                                   \
    for (; r + R <= rows; r += R)                                                                 \
        if (four) packed256(R, 1, w, scale, ready + r * step, step, y + r * wide, wide, k, real); \
        else packed256(R, 0, w, scale, ready + r * step, step, y + r * wide, wide, k, real);
    TAKE(4)
    TAKE(2)
    TAKE(1)
#undef TAKE
}
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
            packed_avx512(four, w, scale, ready, step, y + j, rows, wide, k,
                          (uint16_t)((1u << real) - 1));
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

/* This thread's share of y [rows, wide] = x [rows, k] times the pieces, one below the other. ready:
 * the rows of x by prepare(). */
static void linear(int64_t kind, int64_t level, const Piece *pieces, int count, const float *bias,
                   const float *x, const char *ready, float *y, int64_t rows, int64_t wide,
                   int64_t k, int self, int threads) {
    for (int p = 0; p < count && pieces[p].n; y += pieces[p].n, p++) {
        int64_t from, to, step = ready_size(k);
        share(pieces[p].n, CHANNELS, self, threads, &from, &to);
        if (kind >= INT8)
            packed(kind, level, pieces + p, ready, step, y, rows, wide, k, from, to);
#ifdef X86
        else if (dots_halves(kind, level))
            bf16_avx512(pieces[p].weight, ready, step, y, rows, wide, k, from, to);
        else if ((level & 3) != PLAIN)
            plain_avx2(kind != FP32, pieces[p].weight, x, y, rows, wide, k, from, to);
#endif
        else
            plain(kind != FP32, pieces[p].weight, x, y, rows, wide, k, from, to);
        if (bias)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = from; j < to; j++) y[r * wide + j] += bias[j];
    }
}

#endif
