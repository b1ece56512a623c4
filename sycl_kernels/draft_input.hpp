// What the MTP block begins with: a token's embedding and the hidden row of the token before it, each normed.
#pragma once

#include "embedding.hpp"
#include "norm.hpp"

namespace arcmtp {

/// Row r of the result is (norm of the embedding of tokens[s], norm of hidden row s), 2 * K values; a work-group per
/// row. s is r, or with LAST_FIRST the rows that a step has accepted, the last of them first: it alone goes through the
/// whole block, and row_positions says where each row belongs. ROWS 0: as many as row_count holds.
template <class F, int K, int VOCAB, simd::u64 OFFSET, bool LAST_FIRST, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void draft_input(const u8 *weights, const int *tokens, const float *hidden, const float *token_norm,
                        const float *hidden_norm, float eps, const int *accepted, const int *positions,
                        int *row_positions, const int *row_count, u8 *quantised, float *plain) {
    simd::reserve_team_memory<TEAM * LANES * 4>();
    const int row = simd::group_index(), rank = simd::team_rank();
    if (ROWS == 0 && row >= row_count[0])
        return;
    int source = row;
    if constexpr (LAST_FIRST) {
        const int last = accepted[0];
        source = row == 0 ? last : row <= last ? row - 1 : row;
        if (rank == 0)
            simd::store<int, 1>(row_positions + row, vec<int, 1>(positions[0] - last + source));
    }
    const int given = tokens[source], id = given < 0 ? 0 : given < VOCAB ? given : VOCAB - 1;
    const u8 *tile = weights + OFFSET + id / LANES * tile_bytes<F, K>();
    const float *before = hidden + simd::u64(source) * K;
    const RowSink<2 * K, QUANTISED, PLAIN> sink{quantised, plain};
    const auto embedding = [=](int chunk) { return LaneValues<F, K>::load(tile, id % LANES, chunk); };
    const auto previous = [=](int chunk) { return simd::load<float, LANES>(before + chunk * LANES); };
    const auto normed = [=](auto load, const float *weight, int first_group) {
        Lanes squares = 0.0f;
        for (int chunk = rank; chunk < K / LANES; chunk += TEAM) {
            const Lanes value = load(chunk);
            squares = simd::fma<float, LANES>(value, value, squares);
        }
        const float scale = inverse_rms<K, TEAM>(squares, eps);
        for (int group = rank; group < K / 32; group += TEAM) {
            const int chunk = group * 2;
            const Lanes low = load(chunk) * scale * simd::load<float, LANES>(weight + chunk * LANES);
            const Lanes high = load(chunk + 1) * scale * simd::load<float, LANES>(weight + (chunk + 1) * LANES);
            sink.put(row, first_group + group, low, high);
        }
    };
    normed(embedding, token_norm, 0);
    normed(previous, hidden_norm, K / 32);
}

/// The hidden row of a block's last token goes before the first one of the next block.
template <int K> inline void carry_hidden(float *hidden, int rows) {
    for (int at = 0; at < K; at += LANES)
        simd::store<float, LANES>(hidden + at, simd::load<float, LANES>(hidden + simd::u64(rows) * K + at));
}

} // namespace arcmtp
