// The experts of a MoE layer for a prompt chunk: a work-group lists the rows of one expert, and its threads compute
// patches of them (patches.hpp), each in columns of its own.
#pragma once

#include "feed_forward.hpp"

namespace arcmtp {

/// The entries of `selected` that are `expert`, in order, in team memory; an entry is row * USED + slot. Each thread
/// looks through a part of them, twice: to know how many it has, and, when all know, to write them.
template <int TEAM, int MOST> struct ExpertEntries {
    static constexpr int PARTS = 0, LIST = (TEAM * 4 + 63) / 64 * 64; // counts of the threads, and then the list
    static constexpr int BYTES = LIST + (MOST + 16) * 4;              // patches read behind the last one
    int count;

    inline ExpertEntries(const int *selected, int length, int expert) {
        const int rank = simd::team_rank(), part = (length + 64 * TEAM - 1) / (64 * TEAM) * 64;
        const int first = rank * part, end = first + part < length ? first + part : length;
        int mine = 0;
        each(selected, first, end, expert, [&](int) { ++mine; });
        simd::team_store<int, 1>(PARTS + 4 * rank, vec<int, 1>(mine));
        simd::team_barrier<TEAM>();
        count = 0;
        int place = 0;
        for (int other = 0; other < TEAM; ++other) {
            place = other == rank ? count : place;
            count += simd::lane<int, 1>(simd::team_load<int, 1>(PARTS + 4 * other), 0);
        }
        each(selected, first, end, expert, [&](int entry) {
            simd::team_store<int, 1>(LIST + 4 * place, vec<int, 1>(entry));
            ++place;
        });
        simd::team_barrier<TEAM>();
    }

    /// Entries `first` … `first` + N - 1; in place of those behind the last one the first of them.
    template <int N> inline vec<int, N> at(int first) const {
        const vec<int, N> found = simd::team_load<int, N>(LIST + 4 * first);
        return simd::select<int, N>(simd::iota<N>() < count - first, found, vec<int, N>(simd::lane<int, N>(found, 0)));
    }

  private:
    template <class USE> static inline void each(const int *selected, int first, int end, int expert, const USE &use) {
        for (int base = first; base < end; base += LANES) {
            const vec<int, LANES> index = simd::iota<LANES>() + base;
            simd::u32 hits = simd::bits<LANES>((simd::load<int, LANES>(selected + base) == expert) & (index < end));
            for (; hits; hits &= hits - 1)
                use(base + __builtin_ctz(hits));
        }
    }
};

/// Calls work.template run<N>(entries) for all of them: N = ROWS, and 8 where no more are left.
template <int ROWS, class ENTRIES, class WORK> inline void for_patches(const ENTRIES &entries, const WORK &work) {
    for (int next = 0; next < entries.count; next += ROWS)
        if (ROWS == 8 || entries.count - next > 8)
            work.template run<ROWS>(entries.template at<ROWS>(next));
        else
            work.template run<8>(entries.template at<8>(next));
}

/// partials[row][slot] = slot weight * (down · hidden[entry]) for the TILES tiles of a thread from `column` on.
template <class DOWN, int K, int WIDTH, int TILES, int SLICES, int USED, bool SHARED> struct DownPatch {
    const u8 *down;
    const u8 *quantised;
    const float *plain;
    const float *slot_weights;
    float *partials;
    int column;

    template <int ROWS> inline void run(vec<int, ROWS> entries) const {
        simd::RowSums<ROWS> sums[TILES];
        constexpr int bytes = tile_bytes<DOWN, K>();
        Patch<DOWN, K, ROWS, TILES, SLICES>::run({down + column / LANES * bytes, bytes},
                                                 PatchRows<ROWS>{quantised, plain, entries}, sums);
        const vec<int, ROWS> place =
            SHARED ? vec<int, ROWS>(entries * (USED + 1) + USED) : vec<int, ROWS>(entries + entries / USED);
        const vec<float, ROWS> weight = simd::gather<float, ROWS>(slot_weights, place);
        ARCMTP_UNROLL_ON_GPU
        for (int r = 0; r < ROWS; ++r)
            store_columns<TILES>(partials + simd::u64(simd::lane<int, ROWS>(place, r)) * WIDTH + column,
                                 [&](int t) { return Lanes(sums[t][r] * simd::lane<float, ROWS>(weight, r)); });
    }
};

/// As experts_gate_up for the `row_count[0]` rows of a prompt chunk of at most CHUNK: work-groups of TEAM threads for
/// each expert, then for the shared one, 32 columns a thread.
template <int K, int CHUNK, int EXPERTS, int USED, int WIDTH, int SHARED_WIDTH, int ROWS, int SLICES, int TEAM,
          class GATE, class UP, class SHARED_GATE, class SHARED_UP, bool QUANTISED, bool PLAIN, bool SHARED_QUANTISED,
          bool SHARED_PLAIN>
inline void experts_gate_up_prompt(const u8 *weights, const u8 *shared_weights, const u8 *quantised, const float *plain,
                                   const int *selected, u8 *hidden_quantised, float *hidden_plain, u8 *shared_quantised,
                                   float *shared_plain, const int *row_count) {
    using Entries = ExpertEntries<TEAM, CHUNK>;
    simd::reserve_team_memory<Entries::BYTES>();
    constexpr int spans = (WIDTH / 32 + TEAM - 1) / TEAM;
    const int group = simd::group_index(), rows = row_count[0];
    if (group >= EXPERTS * spans) {
        gate_up_prompt<K, SHARED_WIDTH, ROWS, SLICES, TEAM, SHARED_GATE, SHARED_UP>(
            group - EXPERTS * spans, shared_weights, quantised, plain,
            RowSink<SHARED_WIDTH, SHARED_QUANTISED, SHARED_PLAIN>{shared_quantised, shared_plain}, rows);
        return;
    }
    using GateFormat = typename GATE::Format;
    using UpFormat = typename UP::Format;
    const int expert = group / spans, column = (group % spans * TEAM + simd::team_rank()) * 32;
    const Entries entries(selected, rows * USED, expert);
    if (column >= WIDTH)
        return;
    const u8 *gate = weights + GATE::OFFSET + expert * (WIDTH / LANES * tile_bytes<GateFormat, K>());
    const u8 *up = weights + UP::OFFSET + expert * (WIDTH / LANES * tile_bytes<UpFormat, K>());
    const GateUpPatch<GateFormat, UpFormat, K, WIDTH, SLICES, USED, QUANTISED, PLAIN> work{
        gate, up, quantised, plain, {hidden_quantised, hidden_plain}, column};
    for_patches<ROWS>(entries, work);
}

/// As experts_down for a prompt chunk; TILES tiles a thread.
template <int K, int SHARED_K, int CHUNK, int EXPERTS, int USED, int WIDTH, int ROWS, int SLICES, int TEAM, int TILES,
          class DOWN, class SHARED_DOWN>
inline void experts_down_prompt(const u8 *weights, const u8 *shared_weights, const u8 *hidden_quantised,
                                const float *hidden_plain, const u8 *shared_quantised, const float *shared_plain,
                                const int *selected, const float *slot_weights, float *partials, const int *row_count) {
    using Entries = ExpertEntries<TEAM, CHUNK>;
    simd::reserve_team_memory<Entries::BYTES>();
    constexpr int columns = TILES * LANES;
    static_assert(WIDTH % columns == 0);
    constexpr int spans = (WIDTH / columns + TEAM - 1) / TEAM;
    using Format = typename DOWN::Format;
    using SharedFormat = typename SHARED_DOWN::Format;
    const int group = simd::group_index(), rows = row_count[0];
    const int column = (group % spans * TEAM + simd::team_rank()) * columns;
    if (group >= EXPERTS * spans) {
        const int first = (group / spans - EXPERTS) * ROWS;
        if (first < rows && column < WIDTH)
            DownPatch<SharedFormat, SHARED_K, WIDTH, TILES, SLICES, USED, true>{
                shared_weights + SHARED_DOWN::OFFSET, shared_quantised, shared_plain, slot_weights, partials, column}
                .template run<ROWS>(rows_from<ROWS>(first, rows));
        return;
    }
    const int expert = group / spans;
    const Entries entries(selected, rows * USED, expert);
    if (column >= WIDTH)
        return;
    const u8 *down = weights + DOWN::OFFSET + expert * (WIDTH / LANES * tile_bytes<Format, K>());
    for_patches<ROWS>(entries, DownPatch<Format, K, WIDTH, TILES, SLICES, USED, false>{
                                   down, hidden_quantised, hidden_plain, slot_weights, partials, column});
}

} // namespace arcmtp
