// What the MTP block begins with: a token's embedding and the hidden row of the token before it, each normed.
#pragma once

#include "batch.hpp"
#include "embedding.hpp"
#include "norm.hpp"

namespace arcmtp {

/// Which token and which hidden row make a row. DRAFT: its own. STEP: the rows of a step, the last accepted row
/// of each sequence before all others: it alone goes through the whole MTP block. PROMPT: its own token and the
/// hidden row of the row before it. CARRIED: its own token and the carried hidden row of the position before it.
enum class Order { DRAFT, STEP, PROMPT, CARRIED };

/// Row r of the result is (norm of the embedding of a token, norm of a hidden row), 2 * K values; a work-group per row.
/// STEP: `row_positions` says where each row belongs, `accepted` [batch] is the last row that counts and `positions`
/// [batch] the position of the token it chose. PROMPT, CARRIED: `positions` are those of the rows; the hidden row
/// before the first row, or each, is among the `carried`. ROWS 0: as many as row_count holds.
template <class F, int K, int VOCAB, simd::u64 OFFSET, Order ORDER, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void draft_input(const u8 *weights, const int *tokens, const float *hidden, const float *token_norm,
                        const float *hidden_norm, float eps, const int *accepted, const int *positions,
                        int *row_positions, const float *carried, Batch batch, const int *row_count, u8 *quantised,
                        float *plain) {
    simd::reserve_team_memory<TEAM * LANES * 4>();
    const int row = simd::group_index(), rank = simd::team_rank();
    if (ROWS == 0 && row >= row_count[0])
        return;
    int source = row;
    if constexpr (ORDER == Order::STEP) {
        const int sequence = row % batch.size, place = row / batch.size, last = accepted[sequence];
        const int r = place == 0 ? last : place <= last ? place - 1 : place;
        source = batch.row(sequence, r);
        if (rank == 0)
            simd::store<int, 1>(row_positions + row, vec<int, 1>(positions[sequence] - last + r));
    }
    const float *before = hidden + simd::u64(source) * K;
    if constexpr (ORDER == Order::PROMPT || ORDER == Order::CARRIED)
        before = ORDER == Order::CARRIED || row == 0 ? carried_row<K>(carried, batch.slots[0], positions[row] - 1)
                                                     : before - K;
    const int given = tokens[source], id = given < 0 ? 0 : given < VOCAB ? given : VOCAB - 1;
    const u8 *tile = weights + OFFSET + id / LANES * tile_bytes<F, K>();
    const RowSink<2 * K, QUANTISED, PLAIN> sink{quantised, plain};
    const auto load = [=](int half, int group) { // of the result, and 32 values there
        if (half == 1)
            return simd::load<float, 32>(before + group * 32);
        return simd::join<float, LANES>(LaneValues<F, K>::load(tile, id % LANES, group * 2),
                                        LaneValues<F, K>::load(tile, id % LANES, group * 2 + 1));
    };
    constexpr int GROUPS = (K / 32 + TEAM - 1) / TEAM; // of a thread
    constexpr bool HELD = GROUPS <= 8;                 // in registers; else they are loaded again
    vec<float, 32> held[HELD ? 2 * GROUPS : 1];
    Lanes squares[2] = {0.0f, 0.0f};
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < 2 * GROUPS; ++i) {
        const int half = i % 2, group = rank + i / 2 * TEAM;
        if (beyond<K, TEAM>(group))
            break;
        const vec<float, 32> value = load(half, group);
        squares[half] = add_squares(value, squares[half]);
        if constexpr (HELD)
            held[i] = value;
    }
    const Lanes scale = inverse_rms<K, TEAM, 2>(squares, eps);
    ARCMTP_UNROLL_ON_GPU
    for (int i = 0; i < 2 * GROUPS; ++i) {
        const int half = i % 2, group = rank + i / 2 * TEAM;
        if (beyond<K, TEAM>(group))
            break;
        vec<float, 32> value;
        if constexpr (HELD)
            value = held[i];
        else
            value = load(half, group);
        const float *weight = (half == 0 ? token_norm : hidden_norm) + group * 32;
        const vec<float, 32> normed = value * simd::lane<float, LANES>(scale, half) * simd::load<float, 32>(weight);
        sink.put(row, half * (K / 32) + group, simd::part<LANES, 0, float, 32>(normed),
                 simd::part<LANES, LANES, float, 32>(normed));
    }
}

/// The hidden row of a prompt chunk's last token is carried to the sequence's next row, and that before the `pending`
/// last ones, from where a checkpoint goes on.
template <int K>
inline void carry_hidden(const float *hidden, const int *positions, int rows, int pending, float *carried, int slot) {
    auto carry = [=](int row) {
        copy_row<K>(carried_row<K>(carried, slot, positions[row]), hidden + simd::u64(row) * K);
    };
    carry(rows - 1);
    if (pending > 0 && pending < rows)
        carry(rows - 1 - pending);
}

} // namespace arcmtp
