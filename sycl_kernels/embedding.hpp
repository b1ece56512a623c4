// Rows of the token embedding: the values of one lane of a column tile, a work-group per 256 inputs of a row.
#pragma once

#include "formats.hpp"

namespace arcmtp {

constexpr int EMBEDDING_SPAN = 256; // inputs of a work-group: what shares a scale in the formats with super-blocks

/// The 16 fields of one half of a group (`second`: 0 or 1), lowest first, of one lane's words, which lie 16 words
/// apart.
template <int BITS> inline vec<float, 16> lane_fields(const simd::u32 *lane_words, int second) {
    const vec<int, 16> bit = simd::iota<16>() * BITS;
    const vec<int, 16> word = (bit >> 5) + second * (BITS / 2);
    const vec<simd::u32, 16> shift = simd::convert<simd::u32, int, 16>(vec<int, 16>(bit & 31));
    const vec<simd::u32, 16> words = simd::gather<simd::u32, 16>(lane_words, vec<int, 16>(word * LANES));
    const vec<simd::u32, 16> fields = (words >> shift) & simd::u32((1 << BITS) - 1);
    return simd::convert<float, int, 16>(simd::convert<int, simd::u32, 16>(fields));
}

/// Inputs 16 * half_group … + 15 of one lane of a tile, by the same float operations as arcmtp.formats.matrix.unpack.
template <class F, int K> struct LaneValues {
    static inline vec<float, 16> load(const u8 *tile, int lane, int half_group) {
        const Planes<F> planes(tile, simd::u32(half_group) / 2);
        const int group = planes.group;
        const u8 *scales = planes.scales;
        const vec<float, 16> codes = load_codes(planes, lane, half_group % 2);
        if constexpr (F::SCHEME == Scheme::group)
            return codes * half_of(scales, group, lane);
        else if constexpr (F::SCHEME == Scheme::group_min)
            return codes * half_of(scales, group, lane) + half_of(scales, F::SPAN + group, lane);
        else if constexpr (F::SCHEME == Scheme::super_min) {
            const u8 *super = scales + F::SPAN * 32;
            const float scale = half_of(super, 0, lane) * float(scales[group * LANES + lane]);
            const float minimum = half_of(super, 1, lane) * float(scales[(F::SPAN + group) * LANES + lane]);
            return codes * scale - minimum;
        } else {
            const simd::i8 scale =
                reinterpret_cast<const simd::i8 *>(scales)[(2 * group + half_group % 2) * LANES + lane];
            return codes * (half_of(scales + F::SPAN * 32, 0, lane) * float(scale));
        }
    }

  private:
    static inline vec<float, 16> load_codes(const Planes<F> &planes, int lane, int second) {
        auto fields = [=](auto bits, const u8 *plane) {
            constexpr int BITS = decltype(bits)::value;
            return lane_fields<BITS>(reinterpret_cast<const simd::u32 *>(plane) + planes.group * BITS * LANES + lane,
                                     second);
        };
        vec<float, 16> codes = fields(std::integral_constant<int, F::BITS == 6 ? 4 : F::BITS>{}, planes.low);
        if constexpr (F::BITS == 6)
            codes += fields(std::integral_constant<int, 2>{}, planes.high) * 16.0f;
        return codes - float(F::ZERO);
    }

    /// Lane `lane` of row `row` of a plane of halves.
    static inline float half_of(const u8 *plane, int row, int lane) {
        return float(reinterpret_cast<const half *>(plane)[row * LANES + lane]);
    }
};
template <class T, int K> struct LaneValues<Plain<T>, K> {
    static inline vec<float, 16> load(const u8 *tile, int lane, int half_group) {
        const T *first = reinterpret_cast<const T *>(tile) + half_group * 16 * LANES + lane;
        return simd::convert<float, typename simd::element<T>::type, 16>(
            simd::gather<T, 16>(first, vec<int, 16>(simd::iota<16>() * LANES)));
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
