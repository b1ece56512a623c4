// The end of a step: which of its rows count, what they say, and where the next step begins.
#pragma once

#include "batch.hpp"
#include "simd.hpp"

namespace arcmtp {

/// Words of a sequence's `turn`, which the host writes when a generation begins and `accept` keeps.
enum Turn { TURN_DONE, TURN_STEP, TURN_LEFT, TURN_STOPS, TURN_STOP_IDS, TURN_WORDS = 32 };
/// Words of a record: how many tokens a step gave, whether the generation is done, drafts that were right, and those
/// that were made; the tokens, and their log-probabilities.
enum Record {
    RECORD_COUNT,
    RECORD_DONE,
    RECORD_ACCEPTED,
    RECORD_DRAFTED,
    RECORD_TOKENS = 8,
    RECORD_LOGPROBS = 16,
    RECORD_WORDS = 32
};
constexpr int MAX_ROWS = RECORD_LOGPROBS - RECORD_TOKENS; // of a sequence in any step

template <class T> inline void put(T *to, T value) { simd::store<T, 1>(to, simd::vec<T, 1>(value)); }

inline bool stops(const int *turn, int token) {
    for (int i = 0; i < turn[TURN_STOPS]; ++i)
        if (turn[TURN_STOP_IDS + i] == token)
            return true;
    return false;
}

/// A work-group for each sequence. Its row r evaluated ids[r] and chose sampled[r]; row r + 1 counts if its input is
/// that choice, and is a draft: rows behind the first `drafted` ones may hold anything. Of a generation that is done
/// nothing counts, so that steps under way when it ends change nothing. The last row that counts is `accepted`, its
/// hidden row is put among the `carried` (HIDDEN > 0). EVALUATED: the rows are pending; otherwise, after a prompt
/// chunk, pending_count stays as it is. By row of the step: sampled, logits, stats, ids, hidden; by row, MAX_ROWS for
/// each sequence, since the next step may have any number of them: positions; by sequence: drafted, accepted; by slot:
/// pending_count, turns, states [STRIDE], records [RECORDS], carried.
template <int ROWS, int STRIDE, int RECORDS, int HIDDEN, bool EVALUATED>
inline void accept(const int *sampled, const float *logits, const float *stats, int *ids, int *positions,
                   int *pending_count, const int *drafted, int *accepted, int *turns, int *states, int *records,
                   const float *hidden, float *carried, Batch batch) {
    const int sequence = simd::group_index(), slot = batch.slots[sequence];
    int *turn = turns + slot * TURN_WORDS, *counts = states + simd::u64(slot) * STRIDE;
    const bool was_done = turn[TURN_DONE] != 0;
    const int step = turn[TURN_STEP], left = turn[TURN_LEFT];
    int *record = records + (slot * RECORDS + step % RECORDS) * RECORD_WORDS;
    int last = 0, count = 0;
    const int made = drafted[sequence] < ROWS ? drafted[sequence] : ROWS - 1;
    bool done = was_done;
    for (int r = 0; r < ROWS && !was_done; ++r) {
        const int row = batch.row(sequence, r), token = sampled[row];
        put(record + RECORD_TOKENS + r, token);
        put(reinterpret_cast<float *>(record) + RECORD_LOGPROBS + r,
            logits[simd::u64(row) * STRIDE + token] - stats[3 * row + 1]);
        put(counts + token, counts[token] + 1);
        last = r;
        count = r + 1;
        done = count >= left || stops(turn, token);
        if (done || r == made || ids[batch.row(sequence, r + 1)] != token)
            break;
    }
    put(record + RECORD_ACCEPTED, was_done ? 0 : last);
    put(record + RECORD_DRAFTED, made);
    put(record + RECORD_DONE, int(done));
    put(record + RECORD_COUNT, count);
    put(turn + TURN_STEP, step + 1);
    put(turn + TURN_DONE, int(done));
    put(turn + TURN_LEFT, left - count);
    if constexpr (EVALUATED)
        put(pending_count + slot, count);
    put(accepted + sequence, last);
    if (was_done)
        return;
    const int chosen = batch.row(sequence, last), position = positions[sequence] + count;
    put(ids + sequence, sampled[chosen]);
    for (int r = 0; r < MAX_ROWS; ++r)
        put(positions + batch.row(sequence, r), position + r);
    copy_row<HIDDEN>(carried_row<HIDDEN>(carried, slot, position - 1), hidden + simd::u64(chosen) * HIDDEN);
}

} // namespace arcmtp
