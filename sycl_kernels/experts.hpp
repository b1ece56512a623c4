// The experts of a MoE layer in two launches: gate, up and SwiGLU; then down, weighted, as partial sums for the next
// norm.
#pragma once

#include "feed_forward.hpp"
#include "norm.hpp"

namespace arcmtp {

/// Lists the entries of `selected` that are `expert` in team memory from byte `list`; how many there are.
/// An entry is row * USED + slot.
template <int TEAM> inline int list_entries(const int *selected, int count, int expert, int list) {
    int found = 0;
    for (int base = 0; base < count; base += LANES) {
        const vec<int, LANES> index = simd::iota<LANES>() + base;
        simd::u32 hits = simd::bits<LANES>((simd::load<int, LANES>(selected + base) == expert) & (index < count));
        for (; hits; hits &= hits - 1, ++found)
            if (simd::team_rank() == 0)
                simd::team_store<int, 1>(list + 4 * found, vec<int, 1>(base + __builtin_ctz(hits)));
    }
    simd::team_barrier<TEAM>();
    return found;
}

/// Calls work.template run<N>(entries) for the listed entries: N = PASS at a time, then one by one.
template <int PASS, class WORK> inline void for_entries(int list, int count, const WORK &work) {
    int next = 0;
    for (; next + PASS <= count; next += PASS)
        work.template run<PASS>(simd::team_load<int, PASS>(list + 4 * next));
    if constexpr (PASS > 1)
        for (; next < count; ++next)
            work.template run<1>(simd::team_load<int, 1>(list + 4 * next));
}

/// partials[row][slot] = slot weight * (down · hidden[entry]) for columns first … last - 1, WAYS tiles at a time.
template <class DOWN, int K, int WIDTH, int SLICES, int WAYS, int USED, bool SHARED> struct Down {
    const u8 *down;
    RowSource<DOWN, K> hidden;
    const float *slot_weights;
    float *partials;
    int first, last;

    template <int N> inline void run(vec<int, N> entries) const {
        const int slice = WAYS > 1 ? simd::team_rank() % SLICES : simd::team_rank();
        for (int column = first + (WAYS > 1 ? simd::team_rank() / SLICES * LANES : 0); column < last;
             column += WAYS * LANES) {
            Lanes acc[N];
            TileSlice<DOWN, K, N, SLICES>::run(
                down + column / LANES * tile_bytes<DOWN, K>(),
                [&](int i) { return hidden(simd::lane<int, N>(entries, i)); }, slice, acc);
            reduce_slices<SLICES, N, 1, WAYS>(acc, [&](int item, Lanes(&value)[1]) {
                const int entry = simd::lane<int, N>(entries, item);
                const int place = SHARED ? entry * (USED + 1) + USED : entry / USED * (USED + 1) + entry % USED;
                simd::store<float, LANES>(partials + simd::u64(place) * WIDTH + column, value[0] * slot_weights[place]);
            });
        }
    }
};

/// The part of a launch that one work-group does: COLUMNS columns of one routed expert's unit or, after all UNITS of
/// them, of the shared expert. (In this order because a CPU compiler was seen to load selected[unit] before asking
/// whether unit < 0.)
template <int UNITS, int WIDTH, int COLUMNS> struct Span {
    static constexpr int SPANS = (WIDTH + COLUMNS - 1) / COLUMNS;
    int unit, first;
    bool shared;
    inline Span() {
        const int group = simd::group_index();
        unit = group / SPANS;
        shared = group >= UNITS * SPANS;
        first = (shared ? group - UNITS * SPANS : group % SPANS) * COLUMNS;
    }
    inline int last(int width) const { return first + COLUMNS < width ? first + COLUMNS : width; }
};

/// Step kernels (ROWS > 0) have a unit per entry of `selected`, prompt chunks a unit per expert. LIST: bytes of a
/// work-group's entries, behind the slices' parts.
template <int K, int EXPERTS, int USED, int WIDTH, int SHARED_WIDTH, int ROWS, int LIST, int PASS, int SLICES,
          int COLUMNS, class GATE, class UP, class SHARED_GATE, class SHARED_UP, bool QUANTISED, bool PLAIN,
          bool SHARED_QUANTISED, bool SHARED_PLAIN>
inline void experts_gate_up(const u8 *weights, const u8 *shared_weights, const u8 *quantised, const float *plain,
                            const int *selected, u8 *hidden_quantised, float *hidden_plain, u8 *shared_quantised,
                            float *shared_plain, const int *row_count) {
    constexpr int list = parts_bytes<SLICES, PASS, 4>();
    simd::reserve_team_memory<list + LIST>();
    const Span<(ROWS > 0 ? ROWS * USED : EXPERTS), WIDTH, COLUMNS> span;
    const int rows = ROWS > 0 ? ROWS : row_count[0];
    if (span.shared) {
        gate_up_rows<K, SHARED_WIDTH, ROWS, PASS, SLICES, COLUMNS, SHARED_GATE, SHARED_UP>(
            shared_weights, quantised, plain,
            RowSink<SHARED_WIDTH, SHARED_QUANTISED, SHARED_PLAIN>{shared_quantised, shared_plain}, span.first, rows);
        return;
    }
    using GateFormat = typename GATE::Format;
    using UpFormat = typename UP::Format;
    const int expert = ROWS > 0 ? selected[span.unit] : span.unit;
    const int count = list_entries<SLICES>(selected, rows * USED, expert, list);
    if (ROWS > 1 && simd::lane<int, 1>(simd::team_load<int, 1>(list), 0) < span.unit)
        return; // the unit of the expert's first entry does them all
    const u8 *gate = weights + GATE::OFFSET + expert * (WIDTH / LANES * tile_bytes<GateFormat, K>());
    const u8 *up = weights + UP::OFFSET + expert * (WIDTH / LANES * tile_bytes<UpFormat, K>());
    using Work = GateUp<GateFormat, UpFormat, K, WIDTH, SLICES, COLUMNS, USED, QUANTISED, PLAIN>;
    for_entries<PASS>(list, count,
                      Work{gate, up, quantised, plain, {hidden_quantised, hidden_plain}, span.first, span.last(WIDTH)});
}

/// partials [rows][USED + 1][WIDTH]: every chosen expert's weighted output, the shared expert's last.
template <int K, int SHARED_K, int EXPERTS, int USED, int WIDTH, int ROWS, int LIST, int PASS, int SLICES, int WAYS,
          int COLUMNS, class DOWN, class SHARED_DOWN>
inline void experts_down(const u8 *weights, const u8 *shared_weights, const u8 *hidden_quantised,
                         const float *hidden_plain, const u8 *shared_quantised, const float *shared_plain,
                         const int *selected, const float *slot_weights, float *partials, const int *row_count) {
    static_assert(WAYS == 1 || (COLUMNS % (WAYS * LANES) == 0 && WIDTH % COLUMNS == 0)); // all come to each barrier
    constexpr int list = parts_bytes<WAYS * SLICES, PASS, 1>();
    simd::reserve_team_memory<list + LIST>();
    const Span<(ROWS > 0 ? ROWS * USED : EXPERTS), WIDTH, COLUMNS> span;
    const int rows = ROWS > 0 ? ROWS : row_count[0], last = span.last(WIDTH);
    using Format = typename DOWN::Format;
    using SharedFormat = typename SHARED_DOWN::Format;
    if (span.shared) {
        for_rows<ROWS, PASS>(
            rows, Down<SharedFormat, SHARED_K, WIDTH, SLICES, WAYS, USED, true>{shared_weights + SHARED_DOWN::OFFSET,
                                                                                {shared_quantised, shared_plain},
                                                                                slot_weights,
                                                                                partials,
                                                                                span.first,
                                                                                last});
        return;
    }
    const int expert = ROWS > 0 ? selected[span.unit] : span.unit;
    const int count = list_entries<WAYS * SLICES>(selected, rows * USED, expert, list);
    if (ROWS > 1 && simd::lane<int, 1>(simd::team_load<int, 1>(list), 0) < span.unit)
        return; // the unit of the expert's first entry does them all
    const u8 *down = weights + DOWN::OFFSET + expert * (WIDTH / LANES * tile_bytes<Format, K>());
    for_entries<PASS>(list, count,
                      Down<Format, K, WIDTH, SLICES, WAYS, USED, false>{
                          down, {hidden_quantised, hidden_plain}, slot_weights, partials, span.first, last});
}

} // namespace arcmtp
