/* The convolutions of the VQ decoder on a CPU, fp32: 3x3 by Winograd's F(4x4, 3x3).
 *
 * Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): 36 products in place of
 * 144 for 16 outputs, on sums of inputs that stay within fp32's precision. Pictures lie as
 * [height, width, channels]. Before the convolution stands, if wanted, GroupNorm with SiLU (a scale
 * and a shift for every channel, applied as the input is read) or a doubling of both sides.
 */
#include "common.h"

enum { TILE = 4, SIDE = 6, POINTS = SIDE * SIDE, TILES = 16, OUTS = 16 };

typedef struct {
    const float *x;              /* [h, w, in] */
    const float *scale, *shift;  /* [in], or null */
    const float *u;              /* [out/16, POINTS, in, 16]: janus_winograd */
    const float *bias;           /* [out] */
    const float *plus;           /* [2^double h, .. w, out] to add, or null */
    float *y;                    /* the same */
    int64_t h, w, in, out;       /* of x; in and out divide by 16 */
    int64_t twice;               /* 1: each input stands for 2x2 */
    int64_t level;               /* the instructions to use; see janus_level */
} Conv;

typedef void Multiply(const float *v, const float *u, float *m, int64_t many, int64_t n);

/* Bᵀ d of six rows, each of n numbers. */
INLINE void into(const float *d, int64_t step, float *v, int64_t to) {
    Lanes d0 = *(const Lanes *)d, d1 = *(const Lanes *)(d + step), d2 = *(const Lanes *)(d + 2 * step);
    Lanes d3 = *(const Lanes *)(d + 3 * step), d4 = *(const Lanes *)(d + 4 * step);
    Lanes d5 = *(const Lanes *)(d + 5 * step);
    *(Lanes *)v = 4 * d0 - 5 * d2 + d4;
    *(Lanes *)(v + to) = d4 + d3 - 4 * (d2 + d1);
    *(Lanes *)(v + 2 * to) = d4 - d3 - 4 * (d2 - d1);
    *(Lanes *)(v + 3 * to) = d4 - d2 + 2 * (d3 - d1);
    *(Lanes *)(v + 4 * to) = d4 - d2 - 2 * (d3 - d1);
    *(Lanes *)(v + 5 * to) = 4 * d1 - 5 * d3 + d5;
}

/* Aᵀ m: six to four. */
INLINE void out_of(const Lanes m[SIDE], Lanes y[TILE]) {
    Lanes a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * d;
    y[2] = a + 4 * c;
    y[3] = b + 8 * d + m[5];
}

/* A row of the picture, normalised, with a border of zeros: [wide + SPARE, in]. */
enum { SPARE = 2 * SIDE };
INLINE void fill(const Conv *c, int64_t row, int64_t wide, float *d) {
    int64_t n = c->in;
    if (row < 0 || row >= c->h << c->twice) {
        memset(d, 0, (size_t)((wide + SPARE) * n) * sizeof(float));
        return;
    }
    memset(d, 0, (size_t)n * sizeof(float));
    memset(d + (wide + 1) * n, 0, (size_t)((SPARE - 1) * n) * sizeof(float));
    for (int64_t j = 0; j < wide; j++) {
        const float *x = c->x + ((row >> c->twice) * c->w + (j >> c->twice)) * n;
        float *to = d + (j + 1) * n;
        if (!c->scale) memcpy(to, x, (size_t)n * sizeof(float));
        else
            for (int64_t k = 0; k < n; k++) {
                float v = x[k] * c->scale[k] + c->shift[k];
                to[k] = v / (1.0f + power(-v));
            }
    }
}

/* m[many, 16] = v[many, n] u[n, 16]; where many is no multiple of four, what is behind v too. */
EVERY_CPU static void multiply(const float *v, const float *u, float *m, int64_t many, int64_t n) {
    for (int64_t t = 0; t < many; t += 4, v += 4 * n, m += 4 * OUTS) {
        Lanes sum[4][2] = {{{0}}};
        for (int64_t k = 0; k < n; k++) {
            Lanes u0 = *(const Lanes *)(u + k * OUTS), u1 = *(const Lanes *)(u + k * OUTS + 8);
            UNROLL
            for (int q = 0; q < 4; q++) {
                sum[q][0] += v[q * n + k] * u0;
                sum[q][1] += v[q * n + k] * u1;
            }
        }
        UNROLL
        for (int q = 0; q < 4; q++) {
            *(Lanes *)(m + q * OUTS) = sum[q][0];
            *(Lanes *)(m + q * OUTS + 8) = sum[q][1];
        }
    }
}

#ifdef X86
/* Q tiles; the multiplication that reads a number of v spreads it, too. */
V512 INLINE void some(const int Q, const float *v, const float *u, float *m, int64_t n) {
    __m512 sum[8];
    UNROLL
    for (int q = 0; q < Q; q++) sum[q] = _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k++) {
        __m512 of = _mm512_loadu_ps(u + k * OUTS);
        UNROLL
        for (int q = 0; q < Q; q++) sum[q] = _mm512_fmadd_ps(_mm512_set1_ps(v[q * n + k]), of, sum[q]);
    }
    UNROLL
    for (int q = 0; q < Q; q++) _mm512_storeu_ps(m + q * OUTS, sum[q]);
}

V512 static void multiply_avx512(const float *v, const float *u, float *m, int64_t many, int64_t n) {
    int64_t t = 0;
    for (; t + 8 <= many; t += 8) some(8, v + t * n, u, m + t * OUTS, n);
    for (; t < many; t += 4) some(4, v + t * n, u, m + t * OUTS, n);
}
#endif

/* One row of tiles, of all outputs. scratch: janus_conv_scratch floats. */
INLINE void tiles(const Conv *c, int64_t top, float *scratch, Multiply *by) {
    int64_t n = c->in, wide = c->w << c->twice, high = c->h << c->twice, across = (wide + 3) / TILE;
    int64_t line = (wide + SPARE) * n;
    float *half = scratch + SIDE * line, *v = half + POINTS * n; /* v [36, TILES, in] */
    float *m = v + POINTS * TILES * n;                           /* [36, TILES, 16] */
    for (int64_t i = 0; i < SIDE; i++) fill(c, top + i - 1, wide, scratch + i * line);
    for (int64_t first = 0; first < across; first += TILES) {
        int64_t many = across - first < TILES ? across - first : TILES;
        for (int64_t t = 0; t < many; t++) {
            const float *d = scratch + (first + t) * TILE * n;
            for (int64_t j = 0; j < SIDE; j++)
                for (int64_t k = 0; k < n; k += WIDTH)
                    into(d + j * n + k, line, half + j * n + k, SIDE * n);
            for (int64_t i = 0; i < SIDE; i++)
                for (int64_t k = 0; k < n; k += WIDTH)
                    into(half + i * SIDE * n + k, n, v + (i * SIDE * TILES + t) * n + k, TILES * n);
        }
        for (int64_t o = 0; o < c->out; o += OUTS) {
            const float *u = c->u + o * POINTS * n;
            for (int64_t p = 0; p < POINTS; p++, u += n * OUTS)
                by(v + p * TILES * n, u, m + p * TILES * OUTS, many, n);
            for (int64_t t = 0; t < many; t++)
                for (int64_t k = 0; k < OUTS; k += WIDTH) {
                    Lanes rows[TILE][SIDE], column[SIDE], done[TILE];
                    for (int j = 0; j < SIDE; j++) {
                        for (int i = 0; i < SIDE; i++)
                            column[i] = *(Lanes *)(m + ((i * SIDE + j) * TILES + t) * OUTS + k);
                        out_of(column, done);
                        for (int i = 0; i < TILE; i++) rows[i][j] = done[i];
                    }
                    for (int i = 0; i < TILE && top + i < high; i++) {
                        out_of(rows[i], done);
                        for (int j = 0; j < TILE; j++) {
                            int64_t x = (first + t) * TILE + j;
                            int64_t at = ((top + i) * wide + x) * c->out + o + k;
                            if (x >= wide) break;
                            Lanes sum = done[j] + *(const Lanes *)(c->bias + o + k);
                            if (c->plus) sum += *(const Lanes *)(c->plus + at);
                            *(Lanes *)(c->y + at) = sum;
                        }
                    }
                }
        }
    }
}

EVERY_CPU static void strip(const Conv *c, int64_t top, float *scratch, Multiply *by) {
    tiles(c, top, scratch, by);
}

/* Floats of scratch. */
int64_t janus_conv_scratch(const Conv *c, int64_t threads) {
    int64_t lines = SIDE * ((c->w << c->twice) + SPARE) * c->in;
    return threads * (lines + POINTS * c->in + POINTS * TILES * (c->in + OUTS));
}

void janus_conv(const Conv *c, float *scratch, int64_t threads) {
    int64_t each = janus_conv_scratch(c, 1), rows = ((c->h << c->twice) + 3) / TILE;
    Multiply *by = multiply;
#ifdef X86
    if ((c->level & 3) == AVX512) by = multiply_avx512;
#endif
    PARALLEL(threads) {
        for (int64_t i = SELF; i < rows; i += TEAM) strip(c, i * TILE, scratch + SELF * each, by);
    }
}

/* Kernels [out, in, 3, 3] -> u: G g Gᵀ. */
void janus_winograd(const float *g, float *u, int64_t out, int64_t in) {
    static const float G[SIDE][3] = {{0.25f, 0, 0},
                                     {-1 / 6.0f, -1 / 6.0f, -1 / 6.0f},
                                     {-1 / 6.0f, 1 / 6.0f, -1 / 6.0f},
                                     {1 / 24.0f, 1 / 12.0f, 1 / 6.0f},
                                     {1 / 24.0f, -1 / 12.0f, 1 / 6.0f},
                                     {0, 0, 1}};
    for (int64_t o = 0; o < out; o++)
        for (int64_t k = 0; k < in; k++) {
            const float *w = g + (o * in + k) * 9;
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++) {
                    double sum = 0;
                    for (int a = 0; a < 3; a++)
                        for (int b = 0; b < 3; b++)
                            sum += (double)G[i][a] * (double)G[j][b] * (double)w[a * 3 + b];
                    u[((o / OUTS * POINTS + i * SIDE + j) * in + k) * OUTS + o % OUTS] = (float)sum;
                }
        }
}

/* GroupNorm as a scale and a shift for every channel: x [n, channels]. */
EVERY_CPU static void sums(const float *x, int64_t n, int64_t channels, double *sum,
                           double *square) {
    float s[4096], q[4096];
    for (int64_t from = 0; from < n; from += 256) { /* short sums in fp32, long ones in double */
        int64_t to = from + 256 < n ? from + 256 : n;
        for (int64_t k = 0; k < channels; k++) s[k] = q[k] = 0;
        for (int64_t i = from; i < to; i++)
            for (int64_t k = 0; k < channels; k++) {
                float v = x[i * channels + k];
                s[k] += v;
                q[k] += v * v;
            }
        for (int64_t k = 0; k < channels; k++) sum[k] += s[k], square[k] += q[k];
    }
}

void janus_norm(const float *x, int64_t n, int64_t channels, int64_t groups, const float *weight,
                const float *bias, double eps, double *scratch, float *scale, float *shift,
                int64_t threads) {
    enum { PARTS = 64 }; /* a fixed number, so that the order of sums is */
    double *all = scratch; /* [PARTS, 2, channels] */
    memset(all, 0, sizeof(double) * PARTS * 2 * (size_t)channels);
    PARALLEL(threads) {
        for (int64_t p = SELF; p < PARTS; p += TEAM) {
            int64_t from = n * p / PARTS, to = n * (p + 1) / PARTS;
            sums(x + from * channels, to - from, channels, all + p * 2 * channels,
                 all + (p * 2 + 1) * channels);
        }
    }
    int64_t each = channels / groups;
    for (int64_t g = 0; g < groups; g++) {
        double sum = 0, square = 0, count = (double)(n * each);
        for (int p = 0; p < PARTS; p++)
            for (int64_t k = g * each; k < (g + 1) * each; k++) {
                sum += all[p * 2 * channels + k];
                square += all[(p * 2 + 1) * channels + k];
            }
        double mean = sum / count, spread = 1 / sqrt(square / count - mean * mean + eps);
        for (int64_t k = g * each; k < (g + 1) * each; k++) {
            scale[k] = (float)(weight[k] * spread);
            shift[k] = (float)(bias[k] - mean * weight[k] * spread);
        }
    }
}
