/* Products with a matrix: y[r, j] = w[j] . x[r] (+ bias[j]), few rows, every weight read once.
 *
 * A result depends on its own row and weights alone: the order of a sum is the same for any number
 * of rows and threads. bfloat16 and fp32 matrices are read row-major, as they lie in a file; for
 * packed ones see packed.h.
 */
#ifndef JANUS_LINEAR_H
#define JANUS_LINEAR_H

#include "packed.h"

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
    if (kind >= INT8) prepare_packed(kind == INT8 ? 128 : 8, x, ready, k);
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

enum { NEAR = 8192, FAR = 8192 }; /* bfloat16 of x that stay in the first cache; 16 KB ahead */

/* R rows of x and C of the matrix. far: fetch into the second cache what is read long after, since
 * rows of x that do not stay in the first one leave a CPU no time to look ahead. */
B512 INLINE void halves(const int R, const int C, int far, const uint16_t *w, const uint16_t *x,
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
        if (far) __builtin_prefetch(w + i + FAR, 0, 2);
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

B512 INLINE void halves_of(const int C, int far, const uint16_t *w, const char *ready,
                           int64_t step, float *y, int64_t rows, int64_t wide, int64_t k) {
    int64_t r = 0, s = step / 2;
    const uint16_t *x = (const uint16_t *)ready;
    for (; r + 4 <= rows; r += 4) halves(4, C, far, w, x + r * s, s, y + r * wide, wide, k);
    if (r + 2 <= rows) halves(2, C, far, w, x + r * s, s, y + r * wide, wide, k), r += 2;
    if (r < rows) halves(1, C, far, w, x + r * s, s, y + r * wide, wide, k);
}

/* Of many(): rows of the matrix, columns, rows of x, and how few are not worth it. */
enum { EIGHT = 8, STRETCH = 1024, MOST = 64, FEW = 4 };

/* Columns from .. to of R rows of x and eight of the matrix, added to sums that are kept. Of so many
 * lines ahead, k apart, what lies at these columns is fetched into the second cache meanwhile. */
B512 INLINE void stretch(const int R, const uint16_t *w, const uint16_t *ahead, int64_t lines,
                         const uint16_t *x, int64_t step, __m512 *kept, int64_t from, int64_t to,
                         int64_t k) {
    __m512 sum[3][EIGHT];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < EIGHT; c++) sum[r][c] = from ? kept[r * EIGHT + c] : _mm512_setzero_ps();
    }
    for (int64_t i = from; i < to; i += 32) {
        __mmask32 real = to - i < 32 ? (__mmask32)((1u << (to - i)) - 1) : 0xffffffffu;
        __m512bh b[3];
        for (int64_t l = 0; l < lines; l++) __builtin_prefetch(ahead + l * k + i, 0, 2);
        UNROLL
        for (int r = 0; r < R; r++) b[r] = (__m512bh)_mm512_maskz_loadu_epi16(real, x + r * step + i);
        UNROLL
        for (int c = 0; c < EIGHT; c++) {
            __m512bh a = (__m512bh)_mm512_maskz_loadu_epi16(real, w + c * k + i);
            UNROLL
            for (int r = 0; r < R; r++) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], a, b[r]);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int c = 0; c < EIGHT; c++) kept[r * EIGHT + c] = sum[r][c];
    }
}

/* The sums of eight vectors, each in the order of _mm512_reduce_add_ps: halves, quarters, pairs. */
B512 INLINE __m256 totals(const __m512 *v) {
    __m256 a[8], b[4], c[2];
    UNROLL
    for (int i = 0; i < 8; i++)
        a[i] = _mm256_add_ps(_mm512_extractf32x8_ps(v[i], 1), _mm512_castps512_ps256(v[i]));
    UNROLL
    for (int i = 0; i < 4; i++) /* i | i + 4 */
        b[i] = _mm256_add_ps(_mm256_permute2f128_ps(a[i], a[i + 4], 0x31),
                             _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    UNROLL
    for (int i = 0; i < 2; i++) /* i, i + 2 | i + 4, i + 6 */
        c[i] = _mm256_add_ps(_mm256_shuffle_ps(b[i], b[i + 2], 0xee),
                             _mm256_shuffle_ps(b[i], b[i + 2], 0x44));
    __m256 d = _mm256_add_ps(_mm256_shuffle_ps(c[0], c[1], 0x88),
                             _mm256_shuffle_ps(c[0], c[1], 0xdd));
    return _mm256_shuffle_ps(d, d, 0xd8); /* it was 0 2 1 3 | 4 6 5 7 */
}

/* Up to MOST rows of x and eight of the matrix, of which as many columns at a time as stay in the
 * nearest cache. Adds in the order of halves(). next: the eight that follow. */
B512 static void many(const uint16_t *w, const uint16_t *next, const uint16_t *x, int64_t step,
                      float *y, int64_t rows, int64_t wide, int64_t k) {
    __m512 kept[MOST * EIGHT];
    int64_t blocks = (rows + 2) / 3, each = (EIGHT + blocks - 1) / blocks;
    for (int64_t from = 0, to; from < k; from = to) {
        to = from + STRETCH < k ? from + STRETCH : k;
        const uint16_t *then = to < k ? w + STRETCH : next - from;
        for (int64_t r = 0, c = 0; r < rows; r += 3, c += each) {
            int64_t lines = c + each < EIGHT ? each : c < EIGHT ? EIGHT - c : 0;
            const uint16_t *ahead = then + c * k, *row = x + r * step;
            __m512 *sums = kept + r * EIGHT;
            if (rows - r >= 3) stretch(3, w, ahead, lines, row, step, sums, from, to, k);
            else if (rows - r == 2) stretch(2, w, ahead, lines, row, step, sums, from, to, k);
            else stretch(1, w, ahead, lines, row, step, sums, from, to, k);
        }
    }
    for (int64_t r = 0; r < rows; r++) _mm256_storeu_ps(y + r * wide, totals(kept + r * EIGHT));
}

B512 static void bf16_avx512(const void *weight, const char *ready, int64_t step, float *y,
                             int64_t rows, int64_t wide, int64_t k, int64_t from, int64_t to) {
    const uint16_t *w = weight, *x = (const uint16_t *)ready;
    int64_t j = from, s = step / 2;
    for (; rows > FEW && j + EIGHT <= to; j += EIGHT) {
        const uint16_t *at = w + j * k, *next = j + 2 * EIGHT <= to ? at + EIGHT * k : at;
        for (int64_t r = 0; r < rows; r += MOST)
            many(at, next, x + r * s, s, y + r * wide + j, rows - r < MOST ? rows - r : MOST, wide, k);
    }
    /* One or two rows: one stream of weights is read faster than four. */
    for (; rows > 2 && j + 4 <= to; j += 4) halves_of(4, 0, w + j * k, ready, step, y + j, rows, wide, k);
    if (rows * k > NEAR)
        for (; j < to; j++) halves_of(1, 1, w + j * k, ready, step, y + j, rows, wide, k);
    for (; j < to; j++) halves_of(1, 0, w + j * k, ready, step, y + j, rows, wide, k);
}

#endif

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
