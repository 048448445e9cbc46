// What training and interpretation do besides their dense products, for CPUs. Who calls it has the same in torch or
// numpy, which is the reference (`kernels.py` of the folder above, most of it); `__init__.py` beside this file compiles,
// loads and calls it.
//
// Functions work on a range of rows (or features), so that threads share a call by ranges; no result depends on how they
// are cut. Matrices are row-major and contiguous. Names: B rows, D = d_model, F = features, N = entries of a code.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512BW__
constexpr int64_t vector_bytes = 64;
#else
constexpr int64_t vector_bytes = 32;
#endif

// Bits of non-negative floats order like integers; negative ones are negative. A bfloat16 is the upper half of a float.
struct Bf16 {
    using Bits = int16_t;
    static float value(Bits bits) {
        const uint32_t wide = static_cast<uint32_t>(static_cast<uint16_t>(bits)) << 16;
        float out;
        std::memcpy(&out, &wide, sizeof out);
        return out;
    }
};

struct F32 {
    using Bits = int32_t;
    static float value(Bits bits) {
        float out;
        std::memcpy(&out, &bits, sizeof out);
        return out;
    }
};

#ifdef __AVX512BW__
const __m512i first_16 = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);

// Write `begin` + i for the bits i of `above`; return how many.
inline int64_t write_positions(__mmask16 above, int64_t begin, int32_t *out) {
    const __m512i here = _mm512_add_epi32(first_16, _mm512_set1_epi32(static_cast<int>(begin)));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(above, here));
    return __builtin_popcount(above);
}

// The positions above `floor` in the 64 bytes of a row that begin at `begin`.
inline int64_t write_above(const int16_t *row, int64_t begin, int16_t floor, int32_t *out) {
    const __mmask32 above = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(row + begin), _mm512_set1_epi16(floor));
    if (above == 0) return 0;
    const int64_t found = write_positions(static_cast<__mmask16>(above), begin, out);
    return found + write_positions(static_cast<__mmask16>(above >> 16), begin + 16, out + found);
}

inline int64_t write_above(const int32_t *row, int64_t begin, int32_t floor, int32_t *out) {
    return write_positions(_mm512_cmpgt_epi32_mask(_mm512_loadu_si512(row + begin), _mm512_set1_epi32(floor)), begin,
                           out);
}
#elif defined(__AVX2__)
// Write `begin` + i for the bits i of `above`, which are few; return how many.
inline int64_t write_positions(uint32_t above, int64_t begin, int32_t *out) {
    int64_t found = 0;
    for (; above != 0; above &= above - 1) out[found++] = static_cast<int32_t>(begin) + __builtin_ctz(above);
    return found;
}

inline __m256i load(const void *from) { return _mm256_loadu_si256(static_cast<const __m256i *>(from)); }

// The positions above `floor` in the 64 bytes of a row that begin at `begin`.
inline int64_t write_above(const int16_t *row, int64_t begin, int16_t floor, int32_t *out) {
    const __m256i level = _mm256_set1_epi16(floor);
    const __m256i low = _mm256_cmpgt_epi16(load(row + begin), level);
    const __m256i high = _mm256_cmpgt_epi16(load(row + begin + 16), level);
    // packing goes by halves of a register: 0 2 1 3 brings their quarters into the order of the row
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0b11011000);
    return write_positions(static_cast<uint32_t>(_mm256_movemask_epi8(bytes)), begin, out);
}

inline int64_t write_above(const int32_t *row, int64_t begin, int32_t floor, int32_t *out) {
    const __m256i level = _mm256_set1_epi32(floor);
    const __m256i low = _mm256_cmpgt_epi32(load(row + begin), level);
    const __m256i high = _mm256_cmpgt_epi32(load(row + begin + 8), level);
    const int first = _mm256_movemask_ps(_mm256_castsi256_ps(low));
    return write_positions(first | _mm256_movemask_ps(_mm256_castsi256_ps(high)) << 8, begin, out);
}
#endif

// Write the positions of the entries of a row above `floor`; return how many. `out` has room for all, and 32 more.
template <class Bits>
int64_t positions_above(const Bits *row, int64_t count, Bits floor, int32_t *out) {
    int64_t found = 0, i = 0;
#ifdef __AVX2__
    constexpr int64_t at_once = 64 / sizeof(Bits);
    for (; i + at_once <= count; i += at_once) found += write_above(row, i, floor, out + found);
#endif
    for (; i < count; ++i) {
        out[found] = static_cast<int32_t>(i);
        found += row[i] > floor;
    }
    return found;
}

// A floor above which at least k entries of a row are, if as many are positive: a little below the k-th largest of the
// maxima of 2k groups or more. About 1.4 k are above it. 0 where groups would be small, or k of them have no positive one.
//
// A group is a lane of vectors: entries that lie `lanes` apart, in a segment of the row.
template <class Bits>
int64_t floor_of(const Bits *row, int64_t F, int64_t k, std::vector<Bits> &maxima) {
    typedef Bits Vector __attribute__((vector_size(vector_bytes), aligned(sizeof(Bits)), may_alias));
    constexpr int64_t wide = 256 / vector_bytes, lanes = 256 / sizeof(Bits);
    const int64_t segments = (2 * k + lanes - 1) / lanes, times = F / (segments * lanes);
    if (times < 4) return 0;
    maxima.resize(segments * lanes);
    const Vector *from = reinterpret_cast<const Vector *>(row);
    Vector *to = reinterpret_cast<Vector *>(maxima.data());
    for (int64_t segment = 0; segment < segments; ++segment, to += wide) {
        Vector most[wide];
        for (int64_t j = 0; j < wide; ++j) most[j] = *from++;
        for (int64_t i = 1; i < times; ++i, from += wide) {
            for (int64_t j = 0; j < wide; ++j) most[j] = most[j] > from[j] ? most[j] : from[j];
        }
        for (int64_t j = 0; j < wide; ++j) to[j] = most[j];
    }
    std::nth_element(maxima.begin(), maxima.begin() + (k - 1), maxima.end(), std::greater<Bits>());
    return std::max<int64_t>(0, static_cast<int64_t>(maxima[k - 1]) - 1);
}

// The k largest of each row after ReLU, of equal ones the lower features; by feature, those that are 0 last.
template <class Float>
void top_k(const typename Float::Bits *z, int64_t rows, int64_t F, int64_t k, int64_t *features, float *values) {
    using Bits = typename Float::Bits;
    std::vector<Bits> maxima;
    std::vector<int32_t> found(F + 32);
    std::vector<int64_t> keys(F), sorted(F);
    for (int64_t row = 0; row < rows; ++row, z += F, features += k, values += k) {
        const Bits floor = static_cast<Bits>(floor_of(z, F, k, maxima));
        const int64_t count = positions_above(z, F, floor, found.data());
        int64_t kept = 0;
        if (count > k) {
            // value and, counted downwards, number of an entry as one integer
            for (int64_t i = 0; i < count; ++i) {
                keys[i] = (static_cast<int64_t>(z[found[i]]) << 31) + (INT32_MAX - found[i]);
            }
            std::copy(keys.begin(), keys.begin() + count, sorted.begin());
            std::nth_element(sorted.begin(), sorted.begin() + (count - k), sorted.begin() + count);
            const int64_t least = sorted[count - k];
            for (int64_t i = 0; i < count; ++i) {
                if (keys[i] >= least) {
                    features[kept] = found[i];
                    values[kept++] = Float::value(z[found[i]]);
                }
            }
        } else {
            for (; kept < count; ++kept) {
                features[kept] = found[kept];
                values[kept] = Float::value(z[found[kept]]);
            }
            for (int64_t feature = 0; kept < k; ++feature) {
                if (z[feature] <= 0) {
                    features[kept] = feature;
                    values[kept++] = 0.0f;
                }
            }
        }
    }
}

template <class Float>
void count_above(const typename Float::Bits *z, int64_t rows, int64_t F, typename Float::Bits floor, int64_t *counts) {
    for (int64_t row = 0; row < rows; ++row, z += F) {
        int64_t count = 0;
        for (int64_t i = 0; i < F; ++i) count += z[i] > floor;
        counts[row] = count;
    }
}

template <class Float>
void entries_above(const typename Float::Bits *z, int64_t rows, int64_t F, typename Float::Bits floor,
                   const int64_t *offsets, int64_t *features, float *values) {
    std::vector<int32_t> found(F + 32);
    for (int64_t row = 0; row < rows; ++row, z += F) {
        const int64_t count = positions_above(z, F, floor, found.data());
        for (int64_t i = 0; i < count; ++i) {
            features[offsets[row] + i] = found[i];
            values[offsets[row] + i] = Float::value(z[found[i]]);
        }
    }
}

// out = sum over entries [begin, end) of weights[j] * X[rows[j]]
inline void weighted_sum(const int64_t *rows, const float *weights, int64_t begin, int64_t end, const float *X,
                         int64_t D, float *__restrict out) {
    std::fill(out, out + D, 0.0f);
    int64_t j = begin;
    for (; j + 4 <= end; j += 4) {
        const float w0 = weights[j], w1 = weights[j + 1], w2 = weights[j + 2], w3 = weights[j + 3];
        const float *__restrict x0 = X + rows[j] * D, *__restrict x1 = X + rows[j + 1] * D;
        const float *__restrict x2 = X + rows[j + 2] * D, *__restrict x3 = X + rows[j + 3] * D;
        for (int64_t d = 0; d < D; ++d) out[d] += w0 * x0[d] + w1 * x1[d] + (w2 * x2[d] + w3 * x3[d]);
    }
    for (; j < end; ++j) {
        const float w = weights[j];
        const float *__restrict x = X + rows[j] * D;
        for (int64_t d = 0; d < D; ++d) out[d] += w * x[d];
    }
}

inline float dot(const float *__restrict a, const float *__restrict b, int64_t D) {
    float sum = 0.0f;
    for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
    return sum;
}

}  // namespace

extern "C" {

void kubesae_top_k_bf16(const int16_t *z, int64_t rows, int64_t F, int64_t k, int64_t *features, float *values) {
    top_k<Bf16>(z, rows, F, k, features, values);
}

void kubesae_top_k_f32(const int32_t *z, int64_t rows, int64_t F, int64_t k, int64_t *features, float *values) {
    top_k<F32>(z, rows, F, k, features, values);
}

void kubesae_count_above_bf16(const int16_t *z, int64_t rows, int64_t F, int64_t floor, int64_t *counts) {
    count_above<Bf16>(z, rows, F, static_cast<int16_t>(floor), counts);
}

void kubesae_count_above_f32(const int32_t *z, int64_t rows, int64_t F, int64_t floor, int64_t *counts) {
    count_above<F32>(z, rows, F, static_cast<int32_t>(floor), counts);
}

void kubesae_entries_above_bf16(const int16_t *z, int64_t rows, int64_t F, int64_t floor, const int64_t *offsets,
                                int64_t *features, float *values) {
    entries_above<Bf16>(z, rows, F, static_cast<int16_t>(floor), offsets, features, values);
}

void kubesae_entries_above_f32(const int32_t *z, int64_t rows, int64_t F, int64_t floor, const int64_t *offsets,
                               int64_t *features, float *values) {
    entries_above<F32>(z, rows, F, static_cast<int32_t>(floor), offsets, features, values);
}

// out[s] = sum over the entries j of segment s of weights[j] * X[rows[j]]: `decode` where segments are rows of a batch,
// gradients of a matrix where they are features.
void kubesae_segment_sums(const int64_t *offsets, int64_t segments, const int64_t *rows, const float *weights,
                          const float *X, int64_t D, float *out) {
    for (int64_t s = 0; s < segments; ++s) {
        weighted_sum(rows, weights, offsets[s], offsets[s + 1], X, D, out + s * D);
    }
}

// out[j] = g[b] . W[features[j]] for the entries j of the rows b
void kubesae_dots(const int64_t *offsets, int64_t rows, const int64_t *features, const float *g, const float *W,
                  int64_t D, float *out) {
    for (int64_t b = 0; b < rows; ++b) {
        for (int64_t j = offsets[b]; j < offsets[b + 1]; ++j) out[j] = dot(g + b * D, W + features[j] * D, D);
    }
}

// Entries sorted by feature, stable: offsets [F + 1] of features, entries [N], row of each [N].
void kubesae_by_feature(const int64_t *offsets, int64_t rows, const int64_t *features, int64_t F, int64_t *ends,
                        int64_t *entries, int64_t *entry_rows) {
    std::fill(ends, ends + F + 1, 0);
    const int64_t N = offsets[rows];
    for (int64_t j = 0; j < N; ++j) ++ends[features[j] + 1];
    for (int64_t f = 0; f < F; ++f) ends[f + 1] += ends[f];
    std::vector<int64_t> next(ends, ends + F);
    for (int64_t b = 0; b < rows; ++b) {
        for (int64_t j = offsets[b]; j < offsets[b + 1]; ++j) {
            const int64_t at = next[features[j]]++;
            entries[at] = j;
            entry_rows[at] = b;
        }
    }
}

// squares[f] = |g_f|^2, along[f] = g_f . w_f
void kubesae_row_stats(const float *g, const float *W, int64_t rows, int64_t D, float *squares, float *along) {
    for (int64_t f = 0; f < rows; ++f, g += D, W += D) {
        squares[f] = dot(g, g, D);
        along[f] = dot(g, W, D);
    }
}

// One step of Adam on rows: w -= rate * m / (sqrt(v) * correct + epsilon). Without `along` the gradient is g.
// With it, of rows that have norm 1 and keep it, g - along_f w: without the part along the row.
void kubesae_adam(float *__restrict W, const float *__restrict g, float *__restrict m, float *__restrict v,
                  int64_t rows, int64_t D, const float *along, float rate, float beta1, float beta2,
                  float epsilon, float correct) {
    for (int64_t f = 0; f < rows; ++f, W += D, g += D, m += D, v += D) {
        const float part = along ? along[f] : 0.0f;
        float square = 0.0f;
        for (int64_t d = 0; d < D; ++d) {
            const float gradient = g[d] - part * W[d];
            m[d] = beta1 * m[d] + (1 - beta1) * gradient;
            v[d] = beta2 * v[d] + (1 - beta2) * gradient * gradient;
            W[d] -= rate * m[d] / (std::sqrt(v[d]) * correct + epsilon);
            square += W[d] * W[d];
        }
        if (along) {
            const float inverse = 1 / std::sqrt(square);
            for (int64_t d = 0; d < D; ++d) W[d] *= inverse;
        }
    }
}

// The values of each of `groups` keys, in the order in which they come: offsets [groups + 1], out [N].
void kubesae_group(const int32_t *key, const int32_t *value, int64_t N, int64_t groups, int64_t *offsets, int32_t *out) {
    std::fill(offsets, offsets + groups + 1, 0);
    for (int64_t n = 0; n < N; ++n) ++offsets[key[n] + 1];
    for (int64_t g = 0; g < groups; ++g) offsets[g + 1] += offsets[g];
    std::vector<int64_t> next(offsets, offsets + groups);
    for (int64_t n = 0; n < N; ++n) out[next[key[n]]++] = value[n];
}

// counts[i * F + g] = rows on which both feature `first` + i and g are active, of rows and features in compressed form
// both ways: the rows of each feature, and the features of each row.
void kubesae_together(const int64_t *row_offsets, const int32_t *features, const int64_t *feature_offsets,
                      const int32_t *rows, int64_t first, int64_t count, int64_t F, int32_t *counts) {
    constexpr int64_t ahead = 8;  // rows of a feature lie anywhere: they are asked for before they are needed
    for (int64_t f = first; f < first + count; ++f, counts += F) {
        std::fill(counts, counts + F, 0);
        const int64_t end = feature_offsets[f + 1];
        for (int64_t j = feature_offsets[f]; j < end; ++j) {
            if (j + ahead < end) __builtin_prefetch(features + row_offsets[rows[j + ahead]]);
            const int64_t stop = row_offsets[rows[j] + 1];
            for (int64_t i = row_offsets[rows[j]]; i < stop; ++i) ++counts[features[i]];
        }
    }
}

// Show entries to tables of what comes first in each of many cells, by order and then by row: K a cell, sorted.
void kubesae_keep_first(const int64_t *cell, const uint64_t *order, const float *value, const int64_t *row, int64_t N,
                        int64_t K, float *values, int64_t *rows, uint64_t *orders) {
    for (int64_t n = 0; n < N; ++n) {
        const auto before = [&](int64_t other) {
            return order[n] != orders[other] ? order[n] < orders[other] : row[n] < rows[other];
        };
        const int64_t first = cell[n] * K;
        int64_t at = first + K - 1;
        if (!before(at)) continue;
        for (; at > first && before(at - 1); --at) {
            values[at] = values[at - 1];
            rows[at] = rows[at - 1];
            orders[at] = orders[at - 1];
        }
        values[at] = value[n];
        rows[at] = row[n];
        orders[at] = order[n];
    }
}

}  // extern "C"
