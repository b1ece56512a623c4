// Which bytes of a thread's registers hold values: every result holds one where all that it is made of does.
#include "poison.hpp"

#include "group.hpp"

namespace xe2 {
namespace {

constexpr std::uint8_t DEFINED = 0xff;

bool bytes_defined(const std::uint8_t *at, int count) {
    for (; count >= 8; count -= 8, at += 8)
        if (peek<std::uint64_t>(at) != ~0ull)
            return false;
    for (; count > 0; --count, ++at)
        if (*at != DEFINED)
            return false;
    return true;
}

/// A bit for each channel whose element holds a value.
std::uint32_t defined_lanes(const Thread &t, const Instruction &in, const Operand &o) {
    if (o.form == Form::IMMEDIATE || o.form == Form::LANES || o.form == Form::NONE)
        return ~0u;
    if (o.form == Form::INDIRECT && !bytes_defined(t.defined + o.offset, 2))
        fault(in, "uses a register's address that nothing has written");
    const std::uint8_t *at = t.defined + place_of(t, o);
    const int size = size_of(o.type);
    if (o.form == Form::SCALAR)
        return bytes_defined(at, size) ? ~0u : 0;
    if (o.form == Form::CONTIGUOUS && bytes_defined(at, size * in.lanes))
        return ~0u;
    std::uint32_t lanes = 0;
    for (int i = 0; i < in.lanes; ++i)
        lanes |= std::uint32_t(bytes_defined(at + stride_to(o, i), size)) << i;
    return lanes;
}

void define(Thread &t, const Instruction &in, std::uint32_t written, std::uint32_t defined) {
    const Operand &o = in.target;
    if (o.form == Form::NONE)
        return;
    const std::uint32_t all = all_lanes(in.lanes);
    const int size = size_of(o.type);
    std::uint8_t *at = t.defined + place_of(t, o);
    if (o.form == Form::CONTIGUOUS && written == all && ((defined & all) == all || (defined & all) == 0)) {
        std::memset(at, defined & 1 ? DEFINED : 0, size * in.lanes);
        return;
    }
    for (int i = 0; i < in.lanes; ++i)
        if (written >> i & 1)
            std::memset(at + size * i * o.horizontal, defined >> i & 1 ? DEFINED : 0, size);
}

void define_flags(Thread &t, const Instruction &in, std::uint32_t written, std::uint32_t defined) {
    std::uint8_t *at = t.defined + in.flag;
    if (in.lanes > 16)
        poke(at, (peek<std::uint32_t>(at) & ~written) | (defined & written));
    else
        poke(at, std::uint16_t((peek<std::uint16_t>(at) & ~written) | (defined & written)));
}

void matrix(Thread &t, const Instruction &in) {
    const bool weights = bytes_defined(t.defined + in.source[1].offset, in.weight_bits * REGISTER);
    bool rows[8];
    for (int row = 0; row < in.rows; ++row) {
        rows[row] = weights && bytes_defined(t.defined + in.source[2].offset + 32 * row, 32) &&
                    (in.source[0].form == Form::NONE ||
                     bytes_defined(t.defined + in.source[0].offset + row * REGISTER, REGISTER));
    }
    for (int row = 0; row < in.rows; ++row)
        std::memset(t.defined + in.target.offset + row * REGISTER, rows[row] ? DEFINED : 0, REGISTER);
}

/// The channels whose predicate holds a value.
std::uint32_t defined_predicate(const Thread &t, const Instruction &in) {
    return in.predicated ? peek<std::uint32_t>(t.defined + in.predicate) : ~0u;
}

/// Flags that are kept in a register for a while: of their 16 bits only some may hold values.
bool copies_bits(const Instruction &in) {
    const Operand &from = in.source[0];
    return in.opcode == Opcode::MOV && in.lanes == 1 && !in.predicated && !from.modified() &&
           from.form == Form::SCALAR && in.target.form != Form::INDIRECT && in.target.form != Form::NONE &&
           size_of(from.type) == size_of(in.target.type) && is_integer(from.type) && is_integer(in.target.type);
}

void calculation(Thread &t, const Instruction &in) {
    if (copies_bits(in)) {
        std::memcpy(t.defined + in.target.offset, t.defined + in.source[0].offset, size_of(in.target.type));
        if (in.condition == Condition::NONE)
            return;
    }
    std::uint32_t defined = ~0u, sources[3] = {~0u, ~0u, ~0u};
    for (int i = 0; i < in.sources; ++i)
        defined &= sources[i] = defined_lanes(t, in, in.source[i]);
    const Operand &a = in.source[0], &b = in.source[1];
    if (in.opcode == Opcode::XOR && a.form == b.form && a.offset == b.offset && a.type == b.type)
        defined = ~0u;
    // A macro's channels meet again behind it, whatever those did that hold no value.
    if (in.opcode == Opcode::INVM || in.opcode == Opcode::RSQTM)
        return define(t, in, enabled(t, in), defined), define_flags(t, in, all_lanes(in.lanes), ~0u);
    const std::uint32_t all = all_lanes(in.lanes), predicate = defined_predicate(t, in), mask = enabled(t, in);
    if (in.opcode == Opcode::SEL && in.predicated)
        return define(t, in, all, predicate & ((mask & sources[0]) | (~mask & sources[1])));
    // Where the predicate holds no value either result is possible.
    define(t, in, mask | (all & ~predicate), defined & predicate);
    if (in.condition != Condition::NONE && in.opcode != Opcode::SEL)
        define_flags(t, in, mask | (all & ~predicate), defined & predicate);
    if (in.opcode == Opcode::MACH)
        for (int i = 0; i < in.lanes; ++i)
            std::memset(t.defined + ACC + 4 * i, defined >> i & 1 ? DEFINED : 0, 4);
}

} // namespace

void follow_poison(Thread &t, const Instruction &in) {
    switch (in.opcode) {
    case Opcode::SEND:
    case Opcode::JMPI:
    case Opcode::GOTO: {
        const std::uint32_t channels = in.opcode == Opcode::JMPI || in.send.block ? 1 : all_lanes(in.lanes);
        if (in.predicated && (defined_predicate(t, in) & channels) != channels)
            fault(in, "depends on a flag that nothing has written");
        if (in.opcode == Opcode::JMPI && !defined_lanes(t, in, in.source[0]))
            fault(in, "jumps by a register that nothing has written");
        return;
    }
    case Opcode::CALL:
        std::memset(t.defined + in.target.offset, DEFINED, 8);
        return;
    case Opcode::RET:
        if (!bytes_defined(t.defined + in.source[0].offset, 4))
            fault(in, "returns to where nothing has written");
        return;
    case Opcode::DPAS:
        return matrix(t, in);
    case Opcode::JOIN:
    case Opcode::SYNC:
    case Opcode::SYNC_BAR:
    case Opcode::NOP:
    case Opcode::MADM:
    case Opcode::ILLEGAL:
        return;
    default:
        return calculation(t, in);
    }
}

} // namespace xe2
