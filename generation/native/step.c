/* One decoder step on a CPU: embeds of one position in, logits of the next out.
 *
 * Follows Language.step of janus_kit/model.py, the reference that the tests hold this to: RMSNorm,
 * rotary positions in halves, shared key-value heads, gated SiLU, then a head. Weights are read
 * row-major as they lie, fp32, or bfloat16 that is widened in registers; everything else is fp32.
 * All threads pass through the same stages and wait for each other between them.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
int omp_get_thread_num(void); /* no omp.h, so that a compiler without it will do */
#define SELF omp_get_thread_num()
#define PRAGMA(x) _Pragma(#x)
#define PARALLEL(n) PRAGMA(omp parallel num_threads(n))
#define WAIT PRAGMA(omp barrier)
#else
#define SELF 0
#define PARALLEL(n)
#define WAIT
#endif
#define SIMD_SUM(...) PRAGMA_SIMD(omp simd reduction(+ : __VA_ARGS__))
#define PRAGMA_SIMD(x) _Pragma(#x)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate;
    int64_t middle;     /* the head's inner width, 0 when it is one matrix */
    int64_t out;        /* logits */
    int64_t half;       /* 1: matrices are bfloat16 */
    float eps;
    float unused;
} Shape;

typedef struct { /* of one layer */
    const float *norm1;
    const void *qkv, *join;
    const float *norm2;
    const void *gate_up, *down;
} Layer;

typedef struct {
    const float *norm;
    const void *inner;        /* [middle, hidden], or null */
    const float *inner_bias;
    const void *outer;        /* [out, middle or hidden] */
    const float *outer_bias;  /* or null */
} Head;

INLINE float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* e^x, x kept within what fp32 holds: Cody and Waite's reduction, a polynomial, an exponent; some 1e-7 off. */
INLINE float power(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

/* y[r, j] = w[j] . x[r] (+ bias[j]) for this thread's share of j; each weight is read once. */
#define ROWS_OF_TWO(LOAD)                                                                  \
    for (; r + 1 < rows; r += 2) {                                                         \
        const float *a = x + r * k, *c = a + k;                                            \
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                              \
        SIMD_SUM(s0, s1, s2, s3)                                                           \
        for (int64_t i = 0; i < k; i++) {                                                  \
            float u = LOAD(w0[i]), v = LOAD(w1[i]);                                        \
            s0 += u * a[i];                                                                \
            s1 += v * a[i];                                                                \
            s2 += u * c[i];                                                                \
            s3 += v * c[i];                                                                \
        }                                                                                  \
        y[r * n + j] = s0;                                                                 \
        y[(r + 1) * n + j] = s2;                                                           \
        if (two) y[r * n + j + 1] = s1, y[(r + 1) * n + j + 1] = s3;                       \
    }                                                                                      \
    for (; r < rows; r++) {                                                                \
        const float *a = x + r * k;                                                        \
        float s0 = 0, s1 = 0;                                                              \
        SIMD_SUM(s0, s1)                                                                   \
        for (int64_t i = 0; i < k; i++) {                                                  \
            s0 += LOAD(w0[i]) * a[i];                                                      \
            s1 += LOAD(w1[i]) * a[i];                                                      \
        }                                                                                  \
        y[r * n + j] = s0;                                                                 \
        if (two) y[r * n + j + 1] = s1;                                                    \
    }
#define AS_IS(v) (v)

INLINE void share(int64_t n, int self, int threads, int64_t *from, int64_t *to) {
    int64_t each = ((n + threads - 1) / threads + 1) / 2 * 2; /* whole pairs */
    *from = each * self < n ? each * self : n;
    *to = *from + each < n ? *from + each : n;
}

INLINE void linear(const Shape *s, const void *weight, const float *bias, const float *x, float *y,
                   int64_t rows, int64_t n, int64_t k, int self, int threads) {
    int64_t from, to;
    share(n, self, threads, &from, &to);
    for (int64_t j = from; j < to; j += 2) {
        int two = j + 1 < to;
        int64_t r = 0;
        if (s->half) {
            const uint16_t *w0 = (const uint16_t *)weight + j * k, *w1 = two ? w0 + k : w0;
            ROWS_OF_TWO(widen)
        } else {
            const float *w0 = (const float *)weight + j * k, *w1 = two ? w0 + k : w0;
            ROWS_OF_TWO(AS_IS)
        }
        if (bias)
            for (r = 0; r < rows; r++) {
                y[r * n + j] += bias[j];
                if (two) y[r * n + j + 1] += bias[j + 1];
            }
    }
}

INLINE void rms_norm(const float *x, const float *weight, float *y, int64_t rows, int64_t d,
                     float eps) {
    for (int64_t r = 0; r < rows; r++, x += d, y += d) {
        float sum = 0;
        SIMD_SUM(sum)
        for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
        float scale = 1.0f / sqrtf(sum / (float)d + eps);
        for (int64_t i = 0; i < d; i++) y[i] = x[i] * scale * weight[i];
    }
}

/* One query head over slots first .. position of its row. */
INLINE void look(const float *q, const float *keys, const float *values, float *scores, float *y,
                 int64_t first, int64_t position, int64_t size) {
    float scale = 1.0f / sqrtf((float)size), top = -INFINITY, total = 0;
    for (int64_t p = first; p <= position; p++) {
        const float *key = keys + p * size;
        float sum = 0;
        SIMD_SUM(sum)
        for (int64_t i = 0; i < size; i++) sum += q[i] * key[i];
        scores[p] = sum * scale;
        top = scores[p] > top ? scores[p] : top;
    }
    PRAGMA_SIMD(omp simd reduction(+ : total))
    for (int64_t p = first; p <= position; p++) {
        scores[p] = power(scores[p] - top);
        total += scores[p];
    }
    for (int64_t i = 0; i < size; i++) y[i] = 0;
    for (int64_t p = first; p <= position; p++) {
        const float *value = values + p * size;
        float weight = scores[p] / total;
        PRAGMA_SIMD(omp simd)
        for (int64_t i = 0; i < size; i++) y[i] += weight * value[i];
    }
}

INLINE void turn(float *x, const float *cos, const float *sin, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] + b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

/* embeds [rows, hidden] -> logits [rows, out]; writes slot `position` of keys and values, each
 * [layers, rows, kv_heads, slots, head_dim]. angles [slots, 2, head_dim]; padding [rows]; scratch:
 * janus_scratch() floats. */
EVERY_CPU void janus_step(const Shape *s, const Layer *layers, const Head *head, int64_t rows,
                          const float *embeds, float *keys, float *values, int64_t slots,
                          const float *angles, const int64_t *padding, int64_t position,
                          float *scratch, float *logits, int64_t threads) {
    int64_t d = s->hidden, size = s->head_dim, group = s->heads / s->kv_heads;
    int64_t wide = (s->heads + 2 * s->kv_heads) * size, read = s->heads * size;
    float *x = scratch, *normed = x + rows * d, *qkv = normed + rows * d, *seen = qkv + rows * wide;
    float *gates = seen + rows * read, *part = gates + rows * 2 * s->intermediate;
    float *scores = part + rows * (d > s->middle ? d : s->middle);
    memcpy(x, embeds, (size_t)(rows * d) * sizeof(float));
    PARALLEL(threads) {
        int self = SELF, all = (int)threads;
        for (int64_t l = 0; l < s->layers; l++) {
            const Layer *layer = layers + l;
            if (self == 0) rms_norm(x, layer->norm1, normed, rows, d, s->eps);
            WAIT
            linear(s, layer->qkv, 0, normed, qkv, rows, wide, d, self, all);
            WAIT
            for (int64_t h = self; h < rows * s->kv_heads; h += all) {
                int64_t r = h / s->kv_heads, kv = h % s->kv_heads;
                const float *cos = angles + (position - padding[r]) * 2 * size, *sin = cos + size;
                float *row = qkv + r * wide, *key = row + (s->heads + kv) * size;
                int64_t at = ((l * rows + r) * s->kv_heads + kv) * slots * size;
                turn(key, cos, sin, size);
                memcpy(keys + at + position * size, key, (size_t)size * sizeof(float));
                memcpy(values + at + position * size, key + s->kv_heads * size,
                       (size_t)size * sizeof(float));
                for (int64_t g = 0; g < group; g++) {
                    int64_t q = kv * group + g;
                    turn(row + q * size, cos, sin, size);
                    look(row + q * size, keys + at, values + at, scores + self * slots,
                         seen + r * read + q * size, padding[r], position, size);
                }
            }
            WAIT
            linear(s, layer->join, 0, seen, part, rows, d, read, self, all);
            WAIT
            if (self == 0) {
                for (int64_t i = 0; i < rows * d; i++) x[i] += part[i];
                rms_norm(x, layer->norm2, normed, rows, d, s->eps);
            }
            WAIT
            linear(s, layer->gate_up, 0, normed, gates, rows, 2 * s->intermediate, d, self, all);
            WAIT
            if (self == 0)
                for (int64_t r = 0; r < rows; r++) {
                    float *gate = gates + r * 2 * s->intermediate, *up = gate + s->intermediate;
                    float *into = gates + r * s->intermediate; /* never ahead of what is read */
                    for (int64_t i = 0; i < s->intermediate; i++)
                        into[i] = gate[i] / (1.0f + power(-gate[i])) * up[i];
                }
            WAIT
            linear(s, layer->down, 0, gates, part, rows, d, s->intermediate, self, all);
            WAIT
            if (self == 0)
                for (int64_t i = 0; i < rows * d; i++) x[i] += part[i];
        }
        if (self == 0) rms_norm(x, head->norm, normed, rows, d, s->eps);
        WAIT
        if (head->inner) {
            linear(s, head->inner, head->inner_bias, normed, part, rows, s->middle, d, self, all);
            WAIT
            if (self == 0)
                for (int64_t i = 0; i < rows * s->middle; i++)
                    part[i] = 0.5f * part[i] * (1.0f + erff(part[i] * 0.70710678f));
            WAIT
        }
        linear(s, head->outer, head->outer_bias, head->inner ? part : normed, logits, rows, s->out,
               head->inner ? s->middle : d, self, all);
    }
}

/* The floats of scratch that janus_step needs. */
int64_t janus_scratch(const Shape *s, int64_t rows, int64_t slots, int64_t threads) {
    int64_t wide = (2 * s->heads + 2 * s->kv_heads) * s->head_dim;
    int64_t widest = s->hidden > s->middle ? s->hidden : s->middle;
    return rows * (2 * s->hidden + wide + 2 * s->intermediate + widest) + threads * slots;
}

/* Four queries against keys 0 .. last, and the mean of the values. turned: keys as [size, wide]. */
enum { QUERIES = 4, LANES = 32, WIDTH = 8, PARTS = LANES / WIDTH };
typedef float Lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define UNROLL PRAGMA_SIMD(GCC unroll 8)

INLINE void four(const float *const q[QUERIES], const float *turned, int64_t wide,
                 const float *values, int64_t step, float *scores, float *const y[QUERIES],
                 const int64_t *last, int64_t size) {
    int64_t most = last[QUERIES - 1] + 1;
    float scale = 1.0f / sqrtf((float)size), total[QUERIES];
    for (int64_t j = 0; j < most; j += LANES) {
        Lanes sum[QUERIES][PARTS] = {{{0}}};
        for (int64_t i = 0; i < size; i++) {
            const Lanes *key = (const Lanes *)(turned + i * wide + j);
            UNROLL
            for (int n = 0; n < QUERIES; n++) {
                UNROLL
                for (int x = 0; x < PARTS; x++) sum[n][x] += q[n][i] * key[x];
            }
        }
        UNROLL
        for (int n = 0; n < QUERIES; n++) {
            UNROLL
            for (int x = 0; x < PARTS; x++)
                ((Lanes *)(scores + n * wide + j))[x] = sum[n][x] * scale;
        }
    }
    for (int n = 0; n < QUERIES; n++) {
        float *row = scores + n * wide, top = -INFINITY, all = 0;
        for (int64_t j = 0; j <= last[n]; j++) top = row[j] > top ? row[j] : top;
        PRAGMA_SIMD(omp simd reduction(+ : all))
        for (int64_t j = 0; j <= last[n]; j++) {
            row[j] = power(row[j] - top);
            all += row[j];
        }
        for (int64_t j = last[n] + 1; j < most; j++) row[j] = 0;
        total[n] = all;
    }
    int64_t from = 0;
    for (; from + LANES <= size; from += LANES) {
        Lanes sum[QUERIES][PARTS] = {{{0}}};
        for (int64_t j = 0; j < most; j++) {
            const Lanes *value = (const Lanes *)(values + j * step + from);
            UNROLL
            for (int n = 0; n < QUERIES; n++) {
                UNROLL
                for (int x = 0; x < PARTS; x++) sum[n][x] += scores[n * wide + j] * value[x];
            }
        }
        UNROLL
        for (int n = 0; n < QUERIES; n++) {
            UNROLL
            for (int x = 0; x < PARTS; x++) ((Lanes *)(y[n] + from))[x] = sum[n][x] / total[n];
        }
    }
    for (; from < size; from++) /* what is no whole LANES */
        for (int n = 0; n < QUERIES; n++) {
            float sum = 0;
            for (int64_t j = 0; j < most; j++) sum += scores[n * wide + j] * values[j * step + from];
            y[n][from] = sum / total[n];
        }
}

/* Causal attention of whole rows: q [b, heads, t, size], k and v with kv_heads, by their strides
 * (batch, head, position; the last is 1), into y [b, t, heads, size]. wide: t rounded up to whole
 * LANES; scratch: threads · (size + QUERIES) · wide floats. */
EVERY_CPU void janus_attend(const float *q, const float *k, const float *v, float *y,
                            const int64_t *q_step, const int64_t *k_step, const int64_t *v_step,
                            int64_t b, int64_t heads, int64_t kv_heads, int64_t t, int64_t size,
                            int64_t wide, float *scratch, int64_t threads) {
    PARALLEL(threads) {
        int self = SELF, all = (int)threads;
        float *turned = scratch + self * (size + QUERIES) * wide, *scores = turned + size * wide;
        for (int64_t item = self; item < b * heads; item += all) {
            int64_t row = item / heads, head = item % heads, kv = head / (heads / kv_heads);
            const float *queries = q + row * q_step[0] + head * q_step[1];
            const float *keys = k + row * k_step[0] + kv * k_step[1];
            const float *values = v + row * v_step[0] + kv * v_step[1];
            memset(turned, 0, (size_t)(size * wide) * sizeof(float));
            for (int64_t near = 0; near < size; near += 16) /* a cache line of each key at a time */
                for (int64_t j = 0; j < t; j++)
                    for (int64_t i = near; i < size && i < near + 16; i++)
                        turned[i * wide + j] = keys[j * k_step[2] + i];
            for (int64_t p = 0; p < t; p += QUERIES) {
                const float *from[QUERIES];
                float *to[QUERIES], spare[1024];
                int64_t last[QUERIES];
                for (int n = 0; n < QUERIES; n++) { /* past the end the last one again */
                    int64_t at = p + n < t ? p + n : t - 1;
                    from[n] = queries + at * q_step[2];
                    to[n] = p + n < t ? y + ((row * t + at) * heads + head) * size : spare;
                    last[n] = at;
                }
                four(from, turned, wide, values, v_step[2], scores, to, last, size);
            }
        }
    }
}
