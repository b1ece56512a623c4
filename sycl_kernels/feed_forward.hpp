// A dense feed-forward's gate, up and SwiGLU in one launch, and what it shares with the experts' (experts.hpp). Down is
// a MUL_MAT.
#pragma once

#include "mul_mat.hpp"

namespace arcmtp {

/// Bytes of team memory for the slices' parts of PASS rows of WIDTH vectors.
template <int SLICES, int PASS, int WIDTH> constexpr int parts_bytes() {
    return SLICES > 1 ? SLICES * PASS * WIDTH * LANES * 4 : 0;
}

/// Calls work.template run<N>(numbers) for all rows: PASS at a time, the rest together when the count is known, else
/// padded to PASS.
template <int ROWS, int PASS, class WORK> inline void for_rows(int rows, const WORK &work) {
    constexpr int whole = ROWS / PASS * PASS, rest = ROWS % PASS;
    const int end = ROWS > 0 ? whole : rows;
    for (int first = 0; first < end; first += PASS)
        work.template run<PASS>(simd::iota<PASS>() + first);
    if constexpr (rest > 0)
        work.template run<rest>(simd::iota<rest>() + whole);
}

/// hidden[entry] = silu(gate · x[row]) * (up · x[row]) for columns first … last - 1, at most COLUMNS, in groups of 32.
template <class GATE, class UP, int K, int WIDTH, int SLICES, int COLUMNS, int ENTRIES_PER_ROW, bool QUANTISED,
          bool PLAIN>
struct GateUp {
    static constexpr int GROUPS = (COLUMNS + 31) / 32;
    const u8 *gate, *up;
    const u8 *quantised;
    const float *plain;
    RowSink<WIDTH, QUANTISED, PLAIN> sink;
    int first, last;

    template <int N> inline void run(vec<int, N> entries) const {
        Lanes acc[GROUPS][N * 4];
        products<GATE, N>(gate, entries, acc, 0);
        products<UP, N>(up, entries, acc, 2);
        ARCMTP_UNROLL_ON_GPU
        for (int group = 0; group < GROUPS; ++group) {
            const int column = first + group * 32;
            if (column >= last)
                continue;
            reduce_slices<SLICES, N, 4>(acc[group], [&](int item, Lanes(&parts)[4]) {
                sink.put(simd::lane<int, N>(entries, item), column / 32, Lanes(simd::silu<LANES>(parts[0]) * parts[2]),
                         Lanes(simd::silu<LANES>(parts[1]) * parts[3]));
            });
        }
    }

  private:
    /// All tiles of one matrix before those of the other: memory likes long runs (docs/log.md).
    template <class F, int N>
    inline void products(const u8 *weights, vec<int, N> entries, Lanes (&acc)[GROUPS][N * 4], int place) const {
        const RowSource<F, K> source{quantised, plain};
        ARCMTP_UNROLL_ON_GPU
        for (int group = 0; group < GROUPS; ++group) {
            const int column = first + group * 32;
            if (column >= last)
                continue;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Lanes part[N];
                TileSlice<F, K, N, SLICES>::run(
                    weights + (column / LANES + half) * tile_bytes<F, K>(),
                    [&](int i) { return source(simd::lane<int, N>(entries, i) / ENTRIES_PER_ROW); }, simd::team_rank(),
                    part);
#pragma unroll
                for (int i = 0; i < N; ++i)
                    acc[group][i * 4 + place + half] = part[i];
            }
        }
    }
};

/// hidden[row] = silu(gate · x[row]) * (up · x[row]) of all rows, for the work-group's COLUMNS columns from `first`.
/// Rows that are counted are padded to whole passes.
template <int K, int WIDTH, int ROWS, int PASS, int SLICES, int COLUMNS, class GATE, class UP, bool QUANTISED,
          bool PLAIN>
inline void gate_up_rows(const u8 *weights, const u8 *quantised, const float *plain,
                         RowSink<WIDTH, QUANTISED, PLAIN> hidden, int first, int rows) {
    using Work = GateUp<typename GATE::Format, typename UP::Format, K, WIDTH, SLICES, COLUMNS, 1, QUANTISED, PLAIN>;
    const int last = first + COLUMNS < WIDTH ? first + COLUMNS : WIDTH;
    for_rows<ROWS, PASS>(rows,
                         Work{weights + GATE::OFFSET, weights + UP::OFFSET, quantised, plain, hidden, first, last});
}

/// hidden [rows][WIDTH] = silu(gate · x) * (up · x), COLUMNS columns a work-group; ROWS = 0: row_count[0] rows.
template <int K, int WIDTH, int ROWS, int PASS, int SLICES, int COLUMNS, class GATE, class UP, bool QUANTISED,
          bool PLAIN>
inline void feed_forward_gate_up(const u8 *weights, const u8 *quantised, const float *plain, u8 *hidden_quantised,
                                 float *hidden_plain, const int *row_count) {
    simd::reserve_team_memory<(SLICES > 1 ? parts_bytes<SLICES, PASS, 4>() : 64)>();
    gate_up_rows<K, WIDTH, ROWS, PASS, SLICES, COLUMNS, GATE, UP>(
        weights, quantised, plain, RowSink<WIDTH, QUANTISED, PLAIN>{hidden_quantised, hidden_plain},
        simd::group_index() * COLUMNS, ROWS > 0 ? ROWS : row_count[0]);
}

/// Whether a format's groups have a minimum, whose products take registers too: gate and up at once would spill.
template <class F> constexpr bool has_minimum = false;
template <int BITS, Scheme S, int ZERO>
constexpr bool has_minimum<Quantised<BITS, S, ZERO>> = Quantised<BITS, S, ZERO>::MINIMUM;

/// GateUp for a patch of a thread: ROWS rows that belong to `entries`, and the 32 columns from `column` on.
template <class GATE, class UP, int K, int WIDTH, int SLICES, int ENTRIES_PER_ROW, bool QUANTISED, bool PLAIN>
struct GateUpPatch {
    const u8 *gate, *up;
    const u8 *quantised;
    const float *plain;
    RowSink<WIDTH, QUANTISED, PLAIN> sink;
    int column;

    template <int ROWS> inline void run(vec<int, ROWS> entries) const {
        const PatchRows<ROWS> from{quantised, plain, vec<int, ROWS>(entries / ENTRIES_PER_ROW)};
        constexpr int bytes = tile_bytes<GATE, K>();
        const u8 *of_gate = gate + column / LANES * bytes, *of_up = up + column / LANES * tile_bytes<UP, K>();
        if constexpr (std::is_same_v<GATE, UP> && !has_minimum<GATE>) { // so that a load of activations serves both
            simd::RowSums<ROWS> sums[4];
            Patch<GATE, K, ROWS, 4, SLICES>::run({of_gate, of_up, bytes}, from, sums);
            put<ROWS>(entries, sums[0], sums[1], sums[2], sums[3]);
        } else {
            simd::RowSums<ROWS> sums[2], of_up_sums[2];
            Patch<GATE, K, ROWS, 2, SLICES>::run({of_gate, bytes}, from, sums);
            Patch<UP, K, ROWS, 2, SLICES>::run({of_up, tile_bytes<UP, K>()}, from, of_up_sums);
            put<ROWS>(entries, sums[0], sums[1], of_up_sums[0], of_up_sums[1]);
        }
    }

  private:
    template <int ROWS, class SUMS>
    inline void put(vec<int, ROWS> entries, const SUMS &gate_low, const SUMS &gate_high, const SUMS &up_low,
                    const SUMS &up_high) const {
        for (int r = 0; r < ROWS; ++r)
            sink.put(simd::lane<int, ROWS>(entries, r), column / 32, Lanes(simd::silu<LANES>(gate_low[r]) * up_low[r]),
                     Lanes(simd::silu<LANES>(gate_high[r]) * up_high[r]));
    }
};

/// hidden[row] = silu(gate · x[row]) * (up · x[row]) of the rows of a prompt chunk, which groups of TEAM threads with
/// ROWS rows share: `group` of them, 32 columns a thread.
template <int K, int WIDTH, int ROWS, int SLICES, int TEAM, class GATE, class UP, bool QUANTISED, bool PLAIN>
inline void gate_up_prompt(int group, const u8 *weights, const u8 *quantised, const float *plain,
                           RowSink<WIDTH, QUANTISED, PLAIN> hidden, int count) {
    using G = typename GATE::Format;
    using U = typename UP::Format;
    constexpr int spans = (WIDTH / 32 + TEAM - 1) / TEAM;
    const int first = group / spans * ROWS, column = (group % spans * TEAM + simd::team_rank()) * 32;
    if (first >= count || column >= WIDTH)
        return;
    GateUpPatch<G, U, K, WIDTH, SLICES, 1, QUANTISED, PLAIN>{
        weights + GATE::OFFSET, weights + UP::OFFSET, quantised, plain, hidden, column}
        .template run<ROWS>(rows_from<ROWS>(first, count));
}

/// As feed_forward_gate_up for a prompt chunk.
template <int K, int WIDTH, int ROWS, int SLICES, int TEAM, class GATE, class UP, bool QUANTISED, bool PLAIN>
inline void feed_forward_gate_up_prompt(const u8 *weights, const u8 *quantised, const float *plain,
                                        u8 *hidden_quantised, float *hidden_plain, const int *row_count) {
    gate_up_prompt<K, WIDTH, ROWS, SLICES, TEAM, GATE, UP>(
        simd::group_index(), weights, quantised, plain,
        RowSink<WIDTH, QUANTISED, PLAIN>{hidden_quantised, hidden_plain}, row_count[0]);
}

} // namespace arcmtp
