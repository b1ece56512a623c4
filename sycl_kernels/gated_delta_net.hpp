// GATED_DELTA_NET: convolution, norms, gates, delta rule and gated output norm in one launch, a work-group per sequence
// and V head.
//
// Lanes are keys: a column of the state, S[all keys][j], is K_DIM / 16 vectors, so that keys and queries are whole
// vectors too, and a thread advances a slice of columns from row to row.
#pragma once

#include "batch.hpp"
#include "formats.hpp"
#include "state_slice.hpp"

namespace arcmtp {

/// Shapes of the heads, and where z, beta and alpha begin in a row of STRIDE projections; q, k and v begin at 0.
template <int K_HEADS_, int V_HEADS_, int K_DIM_, int V_DIM_, int STRIDE_, int Z_, int BETA_, int ALPHA_>
struct DeltaNet {
    static constexpr int K_HEADS = K_HEADS_, V_HEADS = V_HEADS_, K_DIM = K_DIM_, V_DIM = V_DIM_;
    static constexpr int STRIDE = STRIDE_, Z = Z_, BETA = BETA_, ALPHA = ALPHA_;
    static constexpr int CHANNELS = 2 * K_DIM + V_DIM; // q, k and v of one V head
    static_assert(K_DIM % LANES == 0 && V_DIM % 32 == 0, "whole vectors of keys, whole groups of outputs");
};

constexpr int WINDOW = 3;       // columns before the current one that the convolution sees
constexpr int PENDING_ROWS = 8; // rows that a step may leave to be committed
constexpr float L2_EPS = 1e-6f; // added to the sum of squares of a query or key

/// What a V head keeps between launches, in floats: the state S after all committed tokens, and of the last step's
/// rows, which are pending, all that is needed to commit them: raw columns, normalised keys, deltas and decays.
template <class NET> struct HeadMemory {
    static constexpr int STATE = 0;                         // [V_DIM][K_DIM]
    static constexpr int HISTORY = NET::V_DIM * NET::K_DIM; // [WINDOW committed + pending][CHANNELS]
    static constexpr int KEYS = HISTORY + (WINDOW + PENDING_ROWS) * NET::CHANNELS; // [pending][K_DIM]
    static constexpr int DELTAS = KEYS + PENDING_ROWS * NET::K_DIM;                // [pending][V_DIM]
    static constexpr int DECAYS = DELTAS + PENDING_ROWS * NET::V_DIM;              // [pending], padded to a vector
    static constexpr int FLOATS = DECAYS + LANES;
};

/// What the team shares of one row, in bytes.
template <class NET> struct TeamRow {
    static constexpr int Q = 0, K = Q + NET::K_DIM * 4, V = K + NET::K_DIM * 4;
    static constexpr int OUTPUT = V + NET::V_DIM * 4;
    static constexpr int BETA = OUTPUT + NET::V_DIM * 4, DECAY = BETA + LANES * 4; // the same value in all lanes
    static constexpr int BYTES = DECAY + LANES * 4;
};

/// One V head. ROWS > 0 is a step: its rows stay pending. ROWS = 0 is a prompt chunk, which commits its rows but for
/// the last ones, at most PENDING_ROWS, behind the first `committed`.
template <class NET, int ROWS, int TEAM, bool QUANTISED, bool PLAIN> struct DeltaNetHead {
    using Memory = HeadMemory<NET>;
    using Row = TeamRow<NET>;
    using Sink = RowSink<NET::V_HEADS * NET::V_DIM, QUANTISED, PLAIN>;
    using Keys = Floats<NET::K_DIM>;
    static constexpr int COLUMNS = NET::V_DIM / 4 <= TEAM ? 4 : 8, SLICES = NET::V_DIM / COLUMNS;
    static constexpr int PASS = ROWS > 0 ? ROWS : PENDING_ROWS; // rows between barriers
    static constexpr bool IN_REGISTERS = SLICES <= TEAM;        // a thread has one slice and keeps it from pass to pass
    static constexpr int SHARES = TEAM > 1 ? 3 : 1;             // of a row's norms and gates, each by a thread
    static constexpr int TOGETHER = 4; // rows whose SiLU takes hardly longer than that of one, a chain of instructions
    using Slice = StateSlice<NET::K_DIM, COLUMNS, IN_REGISTERS>;
    static_assert(ROWS <= PENDING_ROWS, "the rows of a step can all be pending");

    const float *projected, *conv, *a, *dt_bias, *norm;
    float rms_eps;
    float *memory;
    Sink sink;
    Batch batch;
    int sequence, head, rank, pending, rows, committed;

    inline void advance() {
        simd::reserve_team_memory<PASS * Row::BYTES>();
        Slice slice;
        if (rank < SLICES) {
            if constexpr (IN_REGISTERS)
                slice.load(slice_at(rank));
            else
                for (int j = 0; j < COLUMNS; ++j)
                    Keys::prefetch(slice_at(rank) + j * NET::K_DIM);
        }
        int first = 0;
        // A chunk of no rows still commits what is pending.
        do {
            const bool commits = ROWS == 0 && first < committed; // otherwise the pass's rows stay pending
            const int left = (commits ? committed : rows) - first, count = ROWS > 0 ? ROWS : left < PASS ? left : PASS;
            if constexpr (ROWS == 0)
                for (int r = first + PASS + rank; r < first + 2 * PASS && r < rows; r += TEAM)
                    prefetch(row(r));
            convolve(first, count, commits);
            simd::team_barrier<TEAM>();
            for (int task = rank; task < SHARES * count; task += TEAM)
                prepare(task / SHARES, task % SHARES, row(first + task / SHARES));
            simd::team_barrier<TEAM>();
            for (int index = rank; index < SLICES; index += TEAM)
                advance_slice(slice, index, first, count, commits);
            simd::team_barrier<TEAM>();
            for (int task = rank; task < count * (NET::V_DIM / 32); task += TEAM)
                finish(first, task / (NET::V_DIM / 32), task % (NET::V_DIM / 32));
            for (int r = rank; !commits && r < count; r += TEAM)
                leave_pending(r);
            first += count;
        } while (first < rows);
    }

  private:
    inline const float *row(int r) const { return projected + simd::u64(batch.row(sequence, r)) * NET::STRIDE; }

    /// Where channel c of this head's q, k and v lies in a row of projections.
    static inline int column_of(int c, int head) {
        const int k_head = head % NET::K_HEADS;
        if (c < NET::K_DIM)
            return k_head * NET::K_DIM + c;
        if (c < 2 * NET::K_DIM)
            return (NET::K_HEADS + k_head - 1) * NET::K_DIM + c;
        return (2 * NET::K_HEADS - 2) * NET::K_DIM + head * NET::V_DIM + c;
    }

    /// A row of the next pass: rows lie pages apart, where the hardware does not foresee them.
    inline void prefetch(const float *values) const {
        Floats<NET::K_DIM>::prefetch(values + column_of(0, head));
        Floats<NET::K_DIM>::prefetch(values + column_of(NET::K_DIM, head));
        Floats<NET::V_DIM>::prefetch(values + column_of(2 * NET::K_DIM, head));
        Floats<NET::V_DIM>::prefetch(values + NET::Z + head * NET::V_DIM);
        simd::prefetch<4>(values + NET::BETA + head);
        simd::prefetch<4>(values + NET::ALPHA + head);
    }

    /// Convolution and SiLU of rows first … first + count - 1 to team memory, and the raw columns to history.
    inline void convolve(int first, int count, bool commits) {
        for (int c = rank * LANES; c < NET::CHANNELS; c += TEAM * LANES) {
            const int column = column_of(c, head);
            const vec<float, 4 * LANES> taps = simd::load<float, 4 * LANES>(conv + column * 4);
            const Lanes tap0 = simd::every<LANES, 4, 0, float, 4 * LANES>(taps),
                        tap1 = simd::every<LANES, 4, 1, float, 4 * LANES>(taps);
            const Lanes tap2 = simd::every<LANES, 4, 2, float, 4 * LANES>(taps),
                        tap3 = simd::every<LANES, 4, 3, float, 4 * LANES>(taps);
            float *history = memory + Memory::HISTORY + c;
            const bool in_history = first == 0 || !commits;
            const float *before =
                in_history ? history + (first == 0 ? pending : 0) * NET::CHANNELS : row(first - WINDOW) + column;
            const int stride = in_history ? NET::CHANNELS : NET::STRIDE;
            Lanes window[WINDOW];
#pragma unroll
            for (int i = 0; i < WINDOW; ++i)
                window[i] = simd::load<float, LANES>(before + i * stride);
            if (!commits)
                keep(history, window);
            // A pointer that went from row to row would let Battlemage's compiler lose a row of the window behind the
            // loop's last whole four (docs/log/compiler.md).
            const float *from = row(first) + column;
            const int step = batch.size * NET::STRIDE;
            const auto convolved = [&](int r) {
                const Lanes now = simd::load<float, LANES>(from + r * step);
                Lanes sum = window[0] * tap0;
                sum = simd::fma<float, LANES>(window[1], tap1, sum);
                sum = simd::fma<float, LANES>(window[2], tap2, sum);
                sum = simd::fma<float, LANES>(now, tap3, sum);
                if (!commits)
                    simd::store<float, LANES>(history + (WINDOW + r) * NET::CHANNELS, now);
                window[0] = window[1];
                window[1] = window[2];
                window[2] = now;
                return sum;
            };
            int r = 0;
            if constexpr (ROWS == 0 && IN_REGISTERS)
                for (; r + TOGETHER <= count; r += TOGETHER) {
                    Lanes sums[TOGETHER];
#pragma unroll
                    for (int i = 0; i < TOGETHER; ++i)
                        sums[i] = convolved(r + i);
                    const auto low = simd::join<float, LANES>(sums[0], sums[1]);
                    const auto high = simd::join<float, LANES>(sums[2], sums[3]);
                    const vec<float, TOGETHER * LANES> all = simd::join<float, 2 * LANES>(low, high);
                    silu_to_team<0>(sums, simd::exp<TOGETHER * LANES>(-all) + 1.0f, r, c);
                }
            for (; r < count; ++r)
                simd::team_store<float, LANES>(r * Row::BYTES + c * 4, simd::silu<LANES>(convolved(r)));
            if (commits && first + count == committed)
                keep(history, window);
        }
    }

    /// SiLU of channels from c on of rows from r on: sums over their divisors, from the I-th on.
    template <int I>
    static inline void silu_to_team(const Lanes (&sums)[TOGETHER], vec<float, TOGETHER * LANES> divisors, int r,
                                    int c) {
        const Lanes divisor = simd::part<LANES, I * LANES, float, TOGETHER * LANES>(divisors);
        simd::team_store<float, LANES>((r + I) * Row::BYTES + c * 4, simd::divide<LANES>(sums[I], divisor));
        if constexpr (I + 1 < TOGETHER)
            silu_to_team<I + 1>(sums, divisors, r, c);
    }

    static inline void keep(float *history, const Lanes (&window)[WINDOW]) {
#pragma unroll
        for (int i = 0; i < WINDOW; ++i)
            simd::store<float, LANES>(history + i * NET::CHANNELS, window[i]);
    }

    /// Of row r of the pass a share of the query's norm, the key's and the gates.
    inline void prepare(int r, int share, const float *values) {
        const int at = r * Row::BYTES;
        if (share == 0)
            normalise<NET::K_DIM>(at + Row::Q); // q is also scaled by 1 / sqrt(K_DIM)
        if (share == 1 % SHARES)
            normalise<1>(at + Row::K);
        if (share != 2 % SHARES)
            return;
        const Lanes beta = simd::sigmoid<LANES>(Lanes(values[NET::BETA + head]));
        const Lanes rate = simd::softplus<LANES>(Lanes(values[NET::ALPHA + head] + dt_bias[head]));
        simd::team_store<float, LANES>(at + Row::BETA, beta);
        simd::team_store<float, LANES>(at + Row::DECAY, simd::exp<LANES>(rate * a[head]));
    }

    /// x / sqrt(SCALE * (sum of squares + L2_EPS)).
    template <int SCALE> static inline void normalise(int at) {
        Keys x;
        x.team_load(at);
        const float square = (simd::sum<LANES>(products<NET::K_DIM>(x, x)) + L2_EPS) * SCALE;
        const float inverse = inverse_root(square);
#pragma unroll
        for (int i = 0; i < Keys::COUNT; ++i)
            x.piece[i] = x.piece[i] * inverse;
        x.team_store(at);
    }
    static inline float inverse_root(float x) {
        return simd::lane<float, LANES>(simd::divide<LANES>(Lanes(1.0f), simd::sqrt<LANES>(Lanes(x))), 0);
    }
    static inline float team_value(int at) { return simd::lane<float, LANES>(simd::team_load<float, LANES>(at), 0); }

    /// The pass's rows on one slice of the state's columns; before the first pass the pending rows that were
    /// accepted.
    inline void advance_slice(Slice &slice, int index, int first, int count, bool commits) {
        float *state = slice_at(index);
        float aside[IN_REGISTERS ? 1 : Slice::FLOATS]; // where pending rows leave the state
        if constexpr (!IN_REGISTERS)
            slice.load(state);
        if (first == 0 && pending > 0) {
            for (int p = 0; p < pending; ++p)
                commit(slice, state, index, p);
            if (!commits)
                slice.store(state);
        }
        for (int r = 0; r < count; ++r)
            step(slice, commits ? state : r + 1 < count ? aside : nullptr, index, r, commits);
        if (commits && first + count == committed)
            slice.store(state);
    }

    inline float *slice_at(int index) const { return memory + Memory::STATE + index * Slice::FLOATS; }

    inline void commit(Slice &slice, float *state, int index, int p) {
        Keys k;
        k.load(memory + Memory::KEYS + p * NET::K_DIM);
        slice.update(k, memory[Memory::DECAYS + p],
                     simd::load<float, COLUMNS>(memory + Memory::DELTAS + p * NET::V_DIM + index * COLUMNS), state);
    }

    /// r = (decay S)ᵀ k, delta = beta (v - r), S = decay S + k ⊗ delta, output = Sᵀ q.
    inline void step(Slice &slice, float *to, int index, int r, bool commits) {
        using Columns = typename Slice::Columns;
        const int at = r * Row::BYTES, columns = index * COLUMNS * 4;
        const float beta = team_value(at + Row::BETA), decay = team_value(at + Row::DECAY);
        Keys k, q;
        k.team_load(at + Row::K);
        if constexpr (IN_REGISTERS) // early where there is room for both
            q.team_load(at + Row::Q);
        const Columns product = slice.dot(k, r == 0 ? slice_at(index + TEAM) : nullptr);
        const Columns delta = (simd::team_load<float, COLUMNS>(at + Row::V + columns) - product * decay) * beta;
        if (!commits)
            simd::store<float, COLUMNS>(memory + Memory::DELTAS + r * NET::V_DIM + index * COLUMNS, delta);
        if constexpr (!IN_REGISTERS)
            q.team_load(at + Row::Q);
        simd::team_store<float, COLUMNS>(at + Row::OUTPUT + columns, slice.update(k, decay, delta, to, q));
    }

    /// RMS norm, then the gate silu(z), of 32 outputs of row r of the pass.
    inline void finish(int first, int r, int group) {
        const int at = r * Row::BYTES + Row::OUTPUT;
        Floats<NET::V_DIM> x;
        x.team_load(at);
        const float square = simd::sum<LANES>(products<NET::V_DIM>(x, x));
        const float inverse = inverse_root(simd::divide(square, NET::V_DIM) + rms_eps);
        const float *z = row(first + r) + NET::Z + head * NET::V_DIM + group * 32;
        const float *weight = norm + group * 32;
        Lanes gated[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Lanes value = simd::team_load<float, LANES>(at + (group * 2 + half) * LANES * 4);
            const Lanes normed = value * inverse * simd::load<float, LANES>(weight + half * LANES);
            gated[half] = normed * simd::silu<LANES>(simd::load<float, LANES>(z + half * LANES));
        }
        sink.put(batch.row(sequence, first + r), head * (NET::V_DIM / 32) + group, gated[0], gated[1]);
    }

    /// Key and decay of row r for the launch that commits it; here, since until now the earlier pending ones were read.
    inline void leave_pending(int r) {
        Keys k;
        k.team_load(r * Row::BYTES + Row::K);
        k.store(memory + Memory::KEYS + r * NET::K_DIM);
        memory[Memory::DECAYS + r] = team_value(r * Row::BYTES + Row::DECAY);
    }
};

/// memory: [slots][V_HEADS] HeadMemory, pending_count: [slots]. A prompt chunk has one sequence; its last
/// `chunk_pending` rows stay pending.
template <class NET, int ROWS, int TEAM, bool QUANTISED, bool PLAIN>
inline void gated_delta_net(const float *projected, const float *conv, const float *a, const float *dt_bias,
                            const float *norm, float rms_eps, float *memory, const int *pending_count, Batch batch,
                            const int *row_count, const int *chunk_pending, u8 *quantised, float *plain) {
    const int sequence = simd::group_index() / NET::V_HEADS, head = simd::group_index() % NET::V_HEADS;
    const int slot = batch.slots[sequence], rows = ROWS > 0 ? ROWS : row_count[0];
    DeltaNetHead<NET, ROWS, TEAM, QUANTISED, PLAIN>{projected,
                                                    conv,
                                                    a,
                                                    dt_bias,
                                                    norm,
                                                    rms_eps,
                                                    memory + (simd::u64(slot) * NET::V_HEADS + head) *
                                                                 HeadMemory<NET>::FLOATS,
                                                    {quantised, plain},
                                                    batch,
                                                    sequence,
                                                    head,
                                                    simd::team_rank(),
                                                    pending_count[slot],
                                                    rows,
                                                    ROWS > 0 ? 0 : rows - chunk_pending[0]}
        .advance();
}

} // namespace arcmtp
