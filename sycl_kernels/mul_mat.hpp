// MUL_MAT: one launch for several matrices that share their input, a work-group for one or some column tiles.
#pragma once

#include "patches.hpp"

namespace arcmtp {

/// One matrix of a launch: its format, where its tiles begin in the weight buffer, and how many there are.
template <class F, simd::u64 OFFSET_, int TILES_> struct Segment {
    using Format = F;
    static constexpr simd::u64 OFFSET = OFFSET_;
    static constexpr int TILES = TILES_;
};

/// Where a format finds its rows: int8 rows for quantised weights, float rows for plain ones.
template <class F, int K> struct RowSource {
    const u8 *quantised;
    const float *plain;
    inline auto operator()(int r) const {
        if constexpr (is_plain<F>::value) {
            const float *x = plain + simd::u64(r) * K;
            return [x](int k) { return simd::load<float, 16>(x + k); };
        } else
            return quantised + simd::u64(r) * ActivationRow<K>::BYTES;
    }
};

/// output[r][column] for rows first … first + ROWS - 1 and the 16 columns of one tile.
template <class F, int K, int ROWS, int SLICES>
inline void tile_rows(const u8 *tile, RowSource<F, K> source, int first, float *output, int stride) {
    Lanes acc[ROWS];
    TileSlice<F, K, ROWS, SLICES>::run(tile, [=](int r) { return source(first + r); }, simd::team_rank(), acc);
    reduce_slices<SLICES, ROWS, 1>(acc, [=](int r, Lanes(&value)[1]) {
        simd::store<float, LANES>(output + simd::u64(first + r) * stride, value[0]);
    });
}

/// ROWS rows are known when compiling; PASS of them share each load of a weight.
template <class F, int K, int ROWS, int PASS, int SLICES>
inline void tile_passes(const u8 *tile, RowSource<F, K> source, float *output, int stride) {
    constexpr int whole = ROWS / PASS * PASS;
    for (int first = 0; first < whole; first += PASS)
        tile_rows<F, K, PASS, SLICES>(tile, source, first, output, stride);
    if constexpr (ROWS % PASS)
        tile_rows<F, K, ROWS % PASS, SLICES>(tile, source, whole, output, stride);
}

template <int K, int ROWS, int PASS, int SLICES, class FIRST, class... REST>
inline void mul_mat_segment(int tile, int rows, const u8 *weights, const u8 *quantised, const float *plain,
                            float *output, int stride) {
    using F = typename FIRST::Format;
    if (tile < FIRST::TILES) {
        const u8 *at = weights + FIRST::OFFSET + tile * tile_bytes<F, K>();
        const RowSource<F, K> source{quantised, plain};
        float *column = output + tile * LANES;
        if constexpr (ROWS > 0)
            tile_passes<F, K, ROWS, PASS, SLICES>(at, source, column, stride);
        else
            for (int first = 0; first < rows; first += PASS)
                tile_rows<F, K, PASS, SLICES>(at, source, first, column, stride);
    } else if constexpr (sizeof...(REST) > 0)
        mul_mat_segment<K, ROWS, PASS, SLICES, REST...>(tile - FIRST::TILES, rows, weights, quantised, plain,
                                                        output + FIRST::TILES * LANES, stride);
}

/// output [rows][all tiles * 16] float = rows of activations times every segment's matrix, transposed; COLUMNS of them
/// a work-group. ROWS = 0: the count is read from `rows` when the kernel runs, and buffers hold a multiple of PASS
/// rows.
template <int K, int ROWS, int PASS, int SLICES, int COLUMNS, class... SEGMENTS>
inline void mul_mat(const u8 *weights, const u8 *quantised, const float *plain, float *output, const int *rows) {
    constexpr int stride = (SEGMENTS::TILES + ...) * LANES, group_tiles = COLUMNS / LANES;
    simd::reserve_team_memory<(SLICES > 1 ? SLICES * PASS * LANES * 4 : 64)>();
    const int first = simd::group_index() * group_tiles; // those behind the last one do nothing
    for (int tile = first; tile < first + group_tiles; ++tile)
        mul_mat_segment<K, ROWS, PASS, SLICES, SEGMENTS...>(tile, ROWS > 0 ? ROWS : rows[0], weights, quantised, plain,
                                                            output, stride);
}

/// A segment of which a thread computes PATCH tiles at a time.
template <class SEGMENT, int PATCH_> struct PatchSegment : SEGMENT {
    static constexpr int PATCH = PATCH_, PATCHES = SEGMENT::TILES / PATCH;
    static_assert(SEGMENT::TILES % PATCH == 0);
};

/// A thread's patch of ROWS rows from `first` on, `count` in all, in the segment that has it; patch 0 is FIRST's first.
template <int K, int ROWS, int SLICES, int TEAM, class FIRST, class... REST>
inline void patch_of_segment(int patch, int first, int count, const u8 *weights, const PatchRows<ROWS> &rows,
                             float *output, int stride) {
    using F = typename FIRST::Format;
    constexpr int tiles = FIRST::PATCH;
    if (patch < FIRST::PATCHES) {
        simd::RowSums<ROWS> sums[tiles];
        constexpr int bytes = tile_bytes<F, K>();
        Patch<F, K, ROWS, tiles, SLICES, TEAM>::run({weights + FIRST::OFFSET + patch * tiles * bytes, bytes}, rows,
                                                    sums);
        ARCMTP_UNROLL_ON_GPU
        for (int r = 0; r < ROWS; ++r)
            if (first + r < count)
                store_columns<tiles>(output + simd::u64(first + r) * stride + patch * tiles * LANES,
                                     [&](int t) { return sums[t][r]; });
    } else if constexpr (sizeof...(REST) > 0)
        patch_of_segment<K, ROWS, SLICES, TEAM, REST...>(patch - FIRST::PATCHES, first, count, weights, rows,
                                                         output + FIRST::TILES * LANES, stride);
}

/// As mul_mat for the rows of a prompt chunk, `count[0]` of at most CHUNK. Each thread of a TEAM has ROWS rows more of
/// the same columns. SEGMENTS are PatchSegments.
template <int K, int CHUNK, int ROWS, int SLICES, int TEAM, class... SEGMENTS>
inline void mul_mat_prompt(const u8 *weights, const u8 *quantised, const float *plain, float *output,
                           const int *count) {
    constexpr int stride = (SEGMENTS::TILES + ...) * LANES, teams = (CHUNK + TEAM * ROWS - 1) / (TEAM * ROWS);
    const int group = simd::group_index(), rows = count[0];
    const int first = (group % teams * TEAM + simd::team_rank()) * ROWS;
    if (first < rows)
        patch_of_segment<K, ROWS, SLICES, TEAM, SEGMENTS...>(
            group / teams, first, rows, weights, PatchRows<ROWS>{quantised, plain, rows_from<ROWS>(first, rows)},
            output, stride);
}

} // namespace arcmtp
