/* Causal attention of whole rows on a CPU, fp32: attend of janus_kit/model.py. */
#include "common.h"

/* Four queries against keys 0 .. last, and the mean of the values. turned: keys as [size, wide]. */
enum { QUERIES = 4, LANES = 32, PARTS = LANES / WIDTH };

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
        PRAGMA(omp simd reduction(+ : all))
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
        int self = SELF, all = TEAM;
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
