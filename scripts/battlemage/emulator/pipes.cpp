#include "pipes.hpp"

#include "instruction.hpp"

#include <algorithm>

namespace xe2 {
namespace {

/// Bytes of an element of its widest operand.
int widest_of(const Instruction &in) {
    int widest = size_of(in.target.type);
    for (int i = 0; i < in.sources; ++i)
        widest = std::max(widest, in.source[i].form == Form::IMMEDIATE ? 0 : size_of(in.source[i].type));
    return widest;
}

} // namespace

Pipe pipe_of(const Instruction &in) {
    switch (in.opcode) {
    case Opcode::SEND:
        return Pipe::SEND;
    case Opcode::DPAS:
        return Pipe::DPAS;
    case Opcode::INV:
    case Opcode::INVM:
    case Opcode::RSQTM:
        return Pipe::MATH;
    case Opcode::JMPI:
    case Opcode::GOTO:
    case Opcode::JOIN:
    case Opcode::CALL:
    case Opcode::RET:
        return Pipe::BRANCH;
    case Opcode::SYNC:
    case Opcode::SYNC_BAR:
    case Opcode::NOP:
    case Opcode::ILLEGAL:
        return Pipe::SYNC;
    case Opcode::MADM:
        return Pipe::FLOAT;
    default:
        break;
    }
    bool floats = in.target.type == Type::F || in.target.type == Type::HF;
    for (int i = 0; i < in.sources; ++i)
        floats = floats || in.source[i].type == Type::F || in.source[i].type == Type::HF;
    return widest_of(in) == 8 ? Pipe::INTEGER64 : floats ? Pipe::FLOAT : Pipe::INTEGER;
}

int slots_of(const Instruction &in) {
    if (in.opcode == Opcode::DPAS)
        return in.rows;
    return in.opcode == Opcode::SEND ? 1 : std::max(1, (in.lanes * widest_of(in) + REGISTER - 1) / REGISTER);
}

} // namespace xe2
