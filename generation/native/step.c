/* Decoder steps on a CPU: embeds of one position in, logits of the next out, or codes drawn in a row.
 *
 * Follows Language.step of janus_kit/model.py and guide and choose of generation/sampling.py, the
 * references that the tests hold this to: RMSNorm, rotary positions in halves, shared key-value
 * heads, gated SiLU, a head, guidance, the inverse of the distribution function. Matrices are as
 * linear.h says, the cache fp32 or bfloat16, everything else fp32. All threads pass through the
 * same stages and wait for each other between them.
 */
#include "linear.h"

typedef struct {
    int64_t layers, hidden, heads, kv_heads, head_dim, intermediate;
    int64_t middle;     /* the head's inner width, 0 when it is one matrix */
    int64_t out;        /* logits */
    int64_t kind;       /* of matrices */
    int64_t cache_half; /* 1: keys and values are bfloat16 */
    int64_t level;      /* of instructions */
    float eps;
    float unused;
} Shape;

typedef struct { /* of one layer */
    const float *norm1;
    Piece qkv[3], join;
    const float *norm2;
    Piece gate_up[2], down;
} Layer;

typedef struct {
    const float *norm;
    Piece inner; /* [middle, hidden], or n = 0 */
    const float *inner_bias;
    Piece outer; /* [out, middle or hidden] */
    const float *outer_bias; /* or null */
} Head;

typedef struct {
    void *keys, *values; /* each [layers, rows, kv_heads, slots, head_dim] */
    int64_t slots;
    const float *angles;    /* [slots, 2, head_dim] */
    const int64_t *padding; /* [rows] */
} Store;

typedef struct {
    const void *table; /* embeds of every code [out, hidden] */
    int64_t table_half;
    int64_t copies;    /* rows of a picture: 2 with guidance, the conditional ones first */
    int64_t count;     /* codes to draw */
    const int64_t *before; /* codes [rows / copies] that are read first; null: logits are there */
    const double *uniform; /* [rows / copies, count] */
    int64_t *codes;        /* the same */
    int64_t finite;        /* 0 as soon as a logit is not */
    double guidance, temperature;
} Draw;

EVERY_CPU static void rms_norm(const float *x, const float *weight, float *y, int64_t d, float eps) {
    float sum = 0;
    PRAGMA(omp simd reduction(+ : sum))
    for (int64_t i = 0; i < d; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)d + eps);
    for (int64_t i = 0; i < d; i++) y[i] = x[i] * scale * weight[i];
}

enum { MANY = 8 }; /* slots at once, so that one sum need not wait for another */

#define NAMED(name) name##_plain
#define WHOLE EVERY_CPU
#define PART INLINE
#define LOAD lanes
#include "look.h"
#undef NAMED
#undef WHOLE
#undef PART
#undef LOAD

#ifdef X86
#define NAMED(name) name##_avx2
#define WHOLE V256
#define PART V256 INLINE
#define LOAD(p, at, half) ((Lanes)eight(p, at, half))
#include "look.h"
#endif

static void look(int64_t level, const float *q, const void *keys, const void *values, int half,
                 float *scores, float *y, int64_t first, int64_t last, int64_t size) {
#ifdef X86
    if ((level & 3) != PLAIN) {
        look_avx2(q, keys, values, half, scores, y, first, last, size);
        return;
    }
#endif
    look_plain(q, keys, values, half, scores, y, first, last, size);
}

EVERY_CPU static void gated(const float *gate, const float *up, float *into, int64_t n) {
    for (int64_t i = 0; i < n; i++) into[i] = gate[i] / (1.0f + power(-gate[i])) * up[i];
}

INLINE void turn(float *x, const float *cos, const float *sin, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] + b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

INLINE void keep(void *store, int64_t at, const float *x, int64_t size, int half) {
    if (!half) memcpy((float *)store + at, x, (size_t)size * sizeof(float));
    else
        for (int64_t i = 0; i < size; i++) ((uint16_t *)store)[at + i] = narrow(x[i]);
}

typedef struct { /* scratch; all but scores have a row for each row */
    float *x, *normed, *qkv, *gates, *part, *scores;
    char *ready;
} Room;

static int64_t widest(const Shape *s) { /* of what is multiplied with a matrix */
    int64_t read = s->heads * s->head_dim, most = s->hidden > s->middle ? s->hidden : s->middle;
    most = most > read ? most : read;
    return most > s->intermediate ? most : s->intermediate;
}

static int64_t qkv_wide(const Shape *s) { return (s->heads + 2 * s->kv_heads) * s->head_dim; }

static Room rooms(const Shape *s, int64_t rows, char *scratch) {
    Room m;
    m.ready = scratch;
    m.x = (float *)(scratch + rows * ready_size(widest(s)));
    m.normed = m.x + rows * s->hidden;
    m.qkv = m.normed + rows * widest(s);
    m.gates = m.qkv + rows * qkv_wide(s);
    m.part = m.gates + rows * 2 * s->intermediate;
    m.scores = m.part + rows * widest(s);
    return m;
}

/* The bytes of scratch that a step needs. */
int64_t janus_scratch(const Shape *s, int64_t rows, int64_t slots, int64_t threads) {
    int64_t each = s->hidden + 2 * widest(s) + qkv_wide(s) + 2 * s->intermediate;
    return rows * (ready_size(widest(s)) + 4 * each) + threads * slots * 4;
}

#define LINEAR(piece, count, bias, from, to, wide, k) \
    linear(kind, level, piece, count, bias, from, m.ready, to, rows, wide, k, self, all)
#define EACH_ROW for (int64_t r = self; r < rows; r += all)

/* x of m, read as position -> logits; all threads come here. */
static void one_step(const Shape *s, const Layer *layers, const Head *head, int64_t rows,
                     const Store *store, int64_t position, Room m, float *logits, int self,
                     int all) {
    int64_t d = s->hidden, size = s->head_dim, read = s->heads * size, wide = qkv_wide(s);
    int64_t group = s->heads / s->kv_heads, inner = s->intermediate, level = s->level;
    int64_t kind = s->kind;
    int half = (int)s->cache_half;
    float *scores = m.scores + self * store->slots;
    int64_t bytes = half ? 2 : 4;
    for (int64_t l = 0; l < s->layers; l++) {
        const Layer *layer = layers + l;
        EACH_ROW {
            float *normed = m.normed + r * d;
            rms_norm(m.x + r * d, layer->norm1, normed, d, s->eps);
            prepare(kind, level, normed, m.ready + r * ready_size(d), d);
        }
        WAIT
        LINEAR(layer->qkv, 3, 0, m.normed, m.qkv, wide, d);
        WAIT
        for (int64_t h = self; h < rows * s->kv_heads; h += all) {
            int64_t r = h / s->kv_heads, kv = h % s->kv_heads;
            const float *cos = store->angles + (position - store->padding[r]) * 2 * size;
            const float *sin = cos + size;
            float *row = m.qkv + r * wide, *key = row + (s->heads + kv) * size;
            int64_t at = ((l * rows + r) * s->kv_heads + kv) * store->slots * size;
            turn(key, cos, sin, size);
            keep(store->keys, at + position * size, key, size, half);
            keep(store->values, at + position * size, key + s->kv_heads * size, size, half);
            for (int64_t g = 0; g < group; g++) {
                int64_t q = kv * group + g;
                turn(row + q * size, cos, sin, size);
                look(level, row + q * size, (const char *)store->keys + at * bytes,
                     (const char *)store->values + at * bytes, half, scores,
                     m.normed + r * read + q * size, store->padding[r], position, size);
            }
        }
        WAIT
        if (kind >= BF16_BOTH) {
            EACH_ROW prepare(kind, level, m.normed + r * read, m.ready + r * ready_size(read), read);
            WAIT
        }
        LINEAR(&layer->join, 1, 0, m.normed, m.part, d, read);
        WAIT
        EACH_ROW {
            float *x = m.x + r * d, *normed = m.normed + r * d;
            for (int64_t i = 0; i < d; i++) x[i] += m.part[r * d + i];
            rms_norm(x, layer->norm2, normed, d, s->eps);
            prepare(kind, level, normed, m.ready + r * ready_size(d), d);
        }
        WAIT
        LINEAR(layer->gate_up, 2, 0, m.normed, m.gates, 2 * inner, d);
        WAIT
        EACH_ROW {
            const float *gate = m.gates + r * 2 * inner, *up = gate + inner;
            float *into = m.normed + r * inner;
            gated(gate, up, into, inner);
            prepare(kind, level, into, m.ready + r * ready_size(inner), inner);
        }
        WAIT
        LINEAR(&layer->down, 1, 0, m.normed, m.part, d, inner);
        WAIT
        EACH_ROW
            for (int64_t i = 0; i < d; i++) m.x[r * d + i] += m.part[r * d + i];
    }
    EACH_ROW {
        rms_norm(m.x + r * d, head->norm, m.normed + r * d, d, s->eps);
        prepare(kind, level, m.normed + r * d, m.ready + r * ready_size(d), d);
    }
    WAIT
    if (head->inner.n) {
        LINEAR(&head->inner, 1, head->inner_bias, m.normed, m.part, s->middle, d);
        WAIT
        EACH_ROW {
            float *into = m.normed + r * s->middle, *from = m.part + r * s->middle;
            for (int64_t i = 0; i < s->middle; i++)
                into[i] = 0.5f * from[i] * (1.0f + erff(from[i] * 0.70710678f));
            prepare(kind, level, into, m.ready + r * ready_size(s->middle), s->middle);
        }
        WAIT
    }
    LINEAR(&head->outer, 1, head->outer_bias, m.normed, logits, s->out,
           head->inner.n ? s->middle : d);
}

/* embeds [rows, hidden] -> logits [rows, out]; writes slot `position` of the store. */
void janus_step(const Shape *s, const Layer *layers, const Head *head, int64_t rows,
                          const float *embeds, const Store *store, int64_t position, char *scratch,
                          float *logits, int64_t threads) {
    Room m = rooms(s, rows, scratch);
    memcpy(m.x, embeds, (size_t)(rows * s->hidden) * sizeof(float));
    PARALLEL(threads) {
        int self = SELF, all = TEAM;
        one_step(s, layers, head, rows, store, position, m, logits, self, all);
    }
}

/* Guidance, and the code at which the distribution function passes the uniform number; summed in
 * double and in the order of the codes, as choose() does. */
EVERY_CPU static int64_t choose(const float *conditional, const float *other, const Draw *w, int64_t n,
                      double uniform, int *finite) {
    float guidance = (float)w->guidance, heat = (float)w->temperature, top = -INFINITY;
    int64_t best = 0;
#define LOGIT(i) (other ? other[i] + guidance * (conditional[i] - other[i]) : conditional[i])
    float bad = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = LOGIT(i);
        bad += v * 0.0f; /* NaN for what is not finite */
        if (v > top) top = v, best = i;
    }
    *finite = bad == 0.0f;
    if (!*finite || w->temperature == 0) return best;
    double sum = 0, most = (double)(top / heat), target;
    for (int64_t i = 0; i < n; i++) sum += exp((double)(LOGIT(i) / heat) - most);
    target = uniform * sum;
    sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)(LOGIT(i) / heat) - most);
        if (sum > target) return i;
    }
    return n - 1;
#undef LOGIT
}

/* Draw w->count codes of each picture; each but the last is read, from slot position on. logits
 * [rows, out] are those of the first code, unless w->before says what comes before it. */
void janus_draw(const Shape *s, const Layer *layers, const Head *head, int64_t rows,
                const Store *store, int64_t position, char *scratch, float *logits, Draw *w,
                int64_t threads) {
    Room m = rooms(s, rows, scratch);
    PARALLEL(threads) {
        int self = SELF, all = TEAM;
        int64_t pictures = rows / w->copies, d = s->hidden, at = position;
        for (int64_t t = 0; t < w->count; t++) {
            if (t || w->before) {
                EACH_ROW {
                    int64_t picture = r % pictures;
                    int64_t code = t ? w->codes[picture * w->count + t - 1] : w->before[picture];
                    for (int64_t i = 0; i < d; i++)
                        m.x[r * d + i] = number(w->table, code * d + i, (int)w->table_half);
                }
                WAIT
                one_step(s, layers, head, rows, store, at++, m, logits, self, all);
                WAIT
            }
            for (int64_t p = self; p < pictures; p += all) {
                const float *own = logits + p * s->out, *other = own + pictures * s->out;
                int finite;
                w->codes[p * w->count + t] = choose(own, w->copies == 2 ? other : 0, w, s->out,
                                                    w->uniform[p * w->count + t], &finite);
                if (!finite) w->finite = 0; /* all threads would write the same */
            }
            WAIT
        }
    }
}

/* y [rows, n] = x [rows, k] times one matrix; ready: rows · janus_ready() bytes. */
int64_t janus_ready(int64_t k) { return ready_size(k); }

void janus_linear(int64_t kind, int64_t level, const Piece *piece, float *x, float *y,
                            char *ready, int64_t rows, int64_t k, int64_t threads) {
    PARALLEL(threads) {
        int self = SELF, all = TEAM;
        EACH_ROW prepare(kind, level, x + r * k, ready + r * ready_size(k), k);
        WAIT
        linear(kind, level, piece, 1, 0, x, ready, y, rows, piece->n, k, self, all);
    }
}

/* What this CPU has: PLAIN, AVX2 or AVX512 for packed matrices, and 4 where it multiplies bfloat16. */
int64_t janus_level(void) {
#ifdef X86
    __builtin_cpu_init();
    int wide = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq");
    int64_t level = PLAIN;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) level = AVX2;
    if (wide && __builtin_cpu_supports("avx512vnni")) level = AVX512;
    return level + (wide && __builtin_cpu_supports("avx512bf16") ? 4 : 0);
#else
    return PLAIN;
#endif
}

/* The sum of n bytes as whole numbers: how fast memory can be read. */
EVERY_CPU int64_t janus_read(const int64_t *data, int64_t n, int64_t threads) {
    int64_t found = 0;
    PARALLEL(threads) {
        int64_t from, to, sum = 0;
        share(n / 8, 64, SELF, TEAM, &from, &to);
        for (int64_t i = from; i < to; i++) sum += data[i];
        PRAGMA(omp atomic)
        found += sum;
    }
    return found;
}
