// Rows of the token embedding: the values of one lane of a column tile, a work-group per 256 inputs of a row.
#pragma once

#include "formats.hpp"

namespace arcmtp {

constexpr int EMBEDDING_SPAN = 256; // inputs of a work-group: what shares a scale in the formats with super-blocks

/// The 16 fields of one half of a group (`second`: 0 or 1), lowest first, of one lane's words, which lie 16 words
/// apart.
template <int BITS> inline vec<simd::u32, 16> lane_fields(const simd::u32 *lane_words, int second) {
    const vec<int, 16> bit = simd::iota<16>() * BITS;
    const vec<int, 16> word = (bit >> 5) + second * (BITS / 2);
    const vec<simd::u32, 16> shift = simd::convert<simd::u32, int, 16>(vec<int, 16>(bit & 31));
    const vec<simd::u32, 16> words = simd::gather<simd::u32, 16>(lane_words, vec<int, 16>(word * LANES));
    return (words >> shift) & simd::u32((1 << BITS) - 1);
}

/// Inputs 16 * half_group … + 15 of one lane of a tile, by the same float operations as arcmtp.formats.matrix.unpack.
template <class F, int K> struct LaneValues {
    static inline vec<float, 16> load(const u8 *tile, int lane, int half_group) {
        const Planes<F> planes(tile, simd::u32(half_group) / 2);
        const int group = planes.group;
        const u8 *scales = planes.scales;
        const vec<float, 16> codes = load_codes(planes, lane, half_group % 2);
        const u8 *super = scales + scale_bytes(F::SCHEME) - (F::MINIMUM ? 64 : 32);
        if constexpr (F::SCHEME == Scheme::group)
            return codes * half_of(scales, group, lane);
        else if constexpr (F::SCHEME == Scheme::group_min)
            return codes * half_of(scales, group, lane) + half_of(scales, F::SPAN + group, lane);
        else if constexpr (F::SCHEME == Scheme::exponent)
            return codes * power_of_two<16>(vec<int, 16>(int(scales[group * LANES + lane])));
        else if constexpr (F::SCHEME == Scheme::super_min) {
            const float scale = half_of(super, 0, lane) * float(scales[group * LANES + lane]);
            const float minimum = half_of(super, 1, lane) * float(scales[(F::SPAN + group) * LANES + lane]);
            return codes * scale - minimum;
        } else if constexpr (F::SCHEME == Scheme::super16_min) {
            const u8 both = scales[half_group % 16 * LANES + lane];
            return codes * (half_of(super, 0, lane) * float(both & 15)) - half_of(super, 1, lane) * float(both >> 4);
        } else {
            const int place = F::HALVES ? half_group % 16 : group;
            const float scale = float(reinterpret_cast<const simd::i8 *>(scales)[place * LANES + lane]);
            return codes * (half_of(super, 0, lane) * (1.0f / F::DIVISOR) * scale);
        }
    }

  private:
    static inline vec<float, 16> load_codes(const Planes<F> &planes, int lane, int second) {
        const simd::u32 *words =
            reinterpret_cast<const simd::u32 *>(planes.low) + planes.group * (F::LOW_BYTES / 4) + lane;
        if constexpr (F::BITS == 6) {
            const simd::u32 *high = reinterpret_cast<const simd::u32 *>(planes.high) + planes.group * 2 * LANES + lane;
            return to_floats(lane_fields<4>(words, second)) + to_floats(lane_fields<2>(high, second)) * 16.0f -
                   float(F::ZERO);
        } else if constexpr (std::is_void_v<typename F::LEVELS>)
            return to_floats(lane_fields<F::BITS>(words, second)) - float(F::ZERO);
        else
            return levels<F::LEVELS::COUNT - 1>(coded_fields(words, second)) - float(F::ZERO);
    }

    static inline vec<simd::u32, 16> coded_fields(const simd::u32 *words, int second) {
        if constexpr (F::BITS == 4)
            return lane_fields<4>(words, second);
        else {
            const vec<int, 16> input = simd::iota<16>();
            const vec<simd::u32, 16> place =
                simd::convert<simd::u32, int, 16>(vec<int, 16>((input & 7) * 4 + (input >> 3) + second * 2));
            vec<simd::u32, 16> codes = 0u;
#pragma unroll
            for (int bit = 0; bit < F::BITS; ++bit)
                codes |= (vec<simd::u32, 16>(words[bit * LANES]) >> place & 1u) << simd::u32(bit);
            return codes;
        }
    }

    /// The level of each code, of those up to LAST.
    template <int LAST> static inline vec<float, 16> levels(vec<simd::u32, 16> codes) {
        constexpr float constant = float(F::LEVELS::level(LAST));
        const vec<float, 16> level = constant;
        if constexpr (LAST == 0)
            return level;
        else
            return simd::select<float, 16>(codes == simd::u32(LAST), level, levels<LAST - 1>(codes));
    }

    static inline vec<float, 16> to_floats(vec<simd::u32, 16> fields) {
        return simd::convert<float, int, 16>(simd::convert<int, simd::u32, 16>(fields));
    }

    /// Lane `lane` of row `row` of a plane of halves.
    static inline float half_of(const u8 *plane, int row, int lane) {
        return float(reinterpret_cast<const half *>(plane)[row * LANES + lane]);
    }
};
template <class T, int K> struct LaneValues<Plain<T>, K> {
    static inline vec<float, 16> load(const u8 *tile, int lane, int half_group) {
        const T *first = reinterpret_cast<const T *>(tile) + half_group * 16 * LANES + lane;
        return widen<T, 16>(simd::gather<T, 16>(first, vec<int, 16>(simd::iota<16>() * LANES)));
    }
};

/// x [rows][K] = the rows `ids` of the matrix [VOCAB][K] at byte OFFSET; an id outside it gives the nearest row.
template <class F, int K, int VOCAB, simd::u64 OFFSET>
inline void embedding(const u8 *weights, const int *ids, float *x, int rows) {
    constexpr int spans = (K + EMBEDDING_SPAN - 1) / EMBEDDING_SPAN;
    const int row = simd::group_index() / spans, span = simd::group_index() % spans;
    if (row >= rows)
        return;
    const int given = ids[row], id = given < 0 ? 0 : given < VOCAB ? given : VOCAB - 1;
    const u8 *tile = weights + OFFSET + id / LANES * tile_bytes<F, K>();
    float *to = x + simd::u64(row) * K;
    const int first = span * (EMBEDDING_SPAN / 16), end = first + EMBEDDING_SPAN / 16;
    for (int half_group = first; half_group < (end < K / 16 ? end : K / 16); ++half_group)
        simd::store<float, 16>(to + half_group * 16, LaneValues<F, K>::load(tile, id % LANES, half_group));
}

} // namespace arcmtp
