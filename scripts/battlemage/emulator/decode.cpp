// Instructions from the text that Intel's assembler library makes of machine code.
#include "handlers.hpp"
#include "iga.hpp"
#include "operand.hpp"
#include "send.hpp"

#include <cstdlib>
#include <map>
#include <sstream>

namespace xe2 {
namespace {

const std::map<std::string, Opcode> OPCODES{
    {"mov", Opcode::MOV},   {"add", Opcode::ADD},   {"add3", Opcode::ADD3},      {"mul", Opcode::MUL},
    {"mad", Opcode::MAD},   {"mac", Opcode::MAC},   {"mach", Opcode::MACH},      {"macl", Opcode::MACL},
    {"sel", Opcode::SEL},   {"cmp", Opcode::CMP},   {"and", Opcode::AND},        {"or", Opcode::OR},
    {"xor", Opcode::XOR},   {"not", Opcode::NOT},   {"shl", Opcode::SHL},        {"shr", Opcode::SHR},
    {"asr", Opcode::ASR},   {"bfn", Opcode::BFN},   {"bfrev", Opcode::BFREV},    {"lzd", Opcode::LZD},
    {"rnde", Opcode::RNDE}, {"dpas", Opcode::DPAS}, {"send", Opcode::SEND},      {"jmpi", Opcode::JMPI},
    {"goto", Opcode::GOTO}, {"join", Opcode::JOIN}, {"call", Opcode::CALL},      {"ret", Opcode::RET},
    {"nop", Opcode::NOP},   {"madm", Opcode::MADM}, {"illegal", Opcode::ILLEGAL}};
const std::map<std::string, Opcode> MATHS{{"inv", Opcode::INV}, {"invm", Opcode::INVM}, {"rsqtm", Opcode::RSQTM}};
const std::map<std::string, Condition> CONDITIONS{{"eq", Condition::EQ}, {"ne", Condition::NE}, {"gt", Condition::GT},
                                                  {"ge", Condition::GE}, {"lt", Condition::LT}, {"le", Condition::LE},
                                                  {"eo", Condition::EO}};

/// The words of an instruction, taken from the front.
class Words {
  public:
    explicit Words(const std::string &text) {
        std::istringstream words(text);
        for (std::string word; words >> word;)
            words_.push_back(word);
    }
    bool left() const { return at_ < words_.size(); }
    const std::string &peek() const {
        static const std::string none;
        return left() ? words_[at_] : none;
    }
    std::string take() {
        if (!left())
            throw Fault("an operand is missing");
        return words_[at_++];
    }
    std::string &front() { return words_[at_]; }

  private:
    std::vector<std::string> words_;
    std::size_t at_ = 0;
};

/// "(W)", "(f0.0)", "(~f1.0)", "(W&f0.1)".
void take_predicate(Words &words, Instruction &in) {
    if (words.peek()[0] != '(')
        return;
    std::string p = words.take();
    p = p.substr(1, p.size() - 2);
    if (p.rfind("W", 0) == 0) // whatever the execution mask, which is full here
        p.erase(0, p.rfind("W&", 0) == 0 ? 2 : 1);
    if (p.empty())
        return;
    in.predicated = true;
    in.inverse = p[0] == '~';
    in.predicate = std::uint16_t(flag_place(p.substr(in.inverse)));
}

/// The opcode, and what stands behind its dot.
std::string take_opcode(Words &words, Instruction &in) {
    std::string name = words.take(), suffix;
    if (const auto dot = name.find('.'); dot != std::string::npos) {
        suffix = name.substr(dot + 1);
        name.resize(dot);
    }
    if (name == "sync")
        in.opcode = suffix == "bar" ? Opcode::SYNC_BAR : Opcode::SYNC;
    else {
        const auto &known = name == "math" ? MATHS : OPCODES;
        const auto found = known.find(name == "math" ? suffix : name);
        if (found == known.end())
            throw Fault("no such instruction is emulated");
        in.opcode = found->second;
    }
    return suffix;
}

/// "(16|M0)": how many channels, from the first on.
void take_lanes(Words &words, Instruction &in) {
    if (words.peek().find("|M") == std::string::npos)
        return;
    const std::string lanes = words.take();
    in.lanes = std::uint8_t(std::atoi(lanes.c_str() + 1));
    if (lanes.find("|M0)") == std::string::npos)
        throw Fault("channels that do not begin with the first are not emulated");
}

/// "(gt)f0.1", with "(sat)" in front of the target.
void take_modifiers(Words &words, Instruction &in) {
    if (words.peek().size() == 8 && words.peek()[0] == '(' && words.peek()[4] == 'f') {
        const std::string word = words.take();
        const auto found = CONDITIONS.find(word.substr(1, 2));
        if (found == CONDITIONS.end())
            throw Fault("no such condition is emulated");
        in.condition = found->second;
        in.flag = std::uint16_t(flag_place(word.substr(4)));
    }
    if (words.peek().rfind("(sat)", 0) == 0) {
        in.saturate = true;
        words.front().erase(0, 5);
        if (words.peek().empty())
            words.take();
    }
}

void take_dpas(Words &words, Instruction &in, const std::string &suffix) {
    const auto part = [&](const std::string &text, const char *type) {
        if (text.substr(text.find(':') + 1) != type)
            throw Fault("no such type of dpas is emulated");
        Operand o;
        const std::string place = text.substr(0, text.find(':'));
        o.type = Type::D;
        o.offset = register_place(place.substr(0, place.find('.')));
        o.form = o.offset == NULL_REGISTER ? Form::NONE : Form::CONTIGUOUS;
        if (const auto dot = place.find('.'); dot != std::string::npos)
            o.offset += std::atoi(place.c_str() + dot + 1); // in bytes: the activations are bytes
        return o;
    };
    if (suffix.rfind("8x", 0) != 0)
        throw Fault("only dpas of depth 8 is emulated");
    in.rows = std::uint8_t(std::atoi(suffix.c_str() + 2));
    in.target = part(words.take(), "d");
    in.source[0] = part(words.take(), "d");
    const std::string weights = words.take(), type = weights.substr(weights.find(':') + 1);
    in.weight_bits = type == "u2" ? 2 : type == "u4" || type == "s4" ? 4 : type == "ub" || type == "b" ? 8 : 0;
    in.signed_weights = type == "s4" || type == "b";
    in.source[1] = part(weights, type.c_str());
    in.source[2] = part(words.take(), "b");
}

void take_operands(Words &words, Instruction &in) {
    const bool macro = in.opcode == Opcode::INVM || in.opcode == Opcode::RSQTM || in.opcode == Opcode::MADM;
    const auto next = [&] { return macro ? macro_operand(words.take()) : operand(words.take()); };
    in.target = next();
    while (words.left() && in.sources < 3) {
        Operand &source = in.source[in.sources++] = next();
        // A vector immediate is eight words: a lane of a wider target takes the nibble of its first word.
        source.nibble_step = std::uint8_t(std::max(1, size_of(in.target.type) * in.target.horizontal / 2));
    }
    if (in.opcode == Opcode::MAC) {
        in.source[2] = operand("acc0.0<1;1,0>:f");
        in.sources = 3;
    }
}

std::uint32_t token_bit(const std::string &name) { return 1u << (std::atoi(name.c_str() + 1) & 31); }

/// "{Compacted,F@2,$3.dst}".
Annotation annotation_of(const std::string &braces) {
    Annotation found;
    std::istringstream parts(braces.substr(1, braces.find('}') - 1));
    for (std::string part; std::getline(parts, part, ',');) {
        if (const auto at = part.find('@'); at != std::string::npos) {
            found.distance = std::uint8_t(std::atoi(part.c_str() + at + 1));
            const std::string pipe = part.substr(0, at);
            found.pipes = pipe == "F"   ? 1 << int(Pipe::FLOAT)
                          : pipe == "I" ? 1 << int(Pipe::INTEGER)
                          : pipe == "L" ? 1 << int(Pipe::INTEGER64)
                          : pipe == "M" ? 1 << int(Pipe::MATH)
                          : pipe == "A" ? (1 << IN_ORDER) - 1
                                        : 0;
        } else if (part[0] == '$' && part.find(".dst") != std::string::npos)
            found.written |= token_bit(part);
        else if (part[0] == '$' && part.find(".src") != std::string::npos)
            found.read |= token_bit(part);
        else if (part[0] == '$')
            found.token = std::int8_t(std::atoi(part.c_str() + 1) & 31);
    }
    return found;
}

/// "sync.allrd ($2,$5)", "sync.allwr null": these tokens, or all.
void take_tokens(Words &words, const std::string &suffix, Annotation &annotation) {
    if (suffix != "allrd" && suffix != "allwr")
        return;
    std::uint32_t tokens = 0;
    std::istringstream names(words.left() ? words.take() : "null");
    for (std::string name; std::getline(names, name, ',');)
        if (const auto dollar = name.find('$'); dollar != std::string::npos)
            tokens |= token_bit(name.substr(dollar));
    (suffix == "allrd" ? annotation.read : annotation.written) |= tokens ? tokens : ~0u;
}

void decode_words(Words &words, const std::string &comment, Instruction &in) {
    take_predicate(words, in);
    const std::string suffix = take_opcode(words, in);
    take_lanes(words, in);
    take_modifiers(words, in);
    switch (in.opcode) {
    case Opcode::SYNC:
        return take_tokens(words, suffix, in.annotation);
    case Opcode::SYNC_BAR:
    case Opcode::NOP:
    case Opcode::JOIN:
    case Opcode::ILLEGAL:
        return;
    case Opcode::JMPI:
        if (words.peek()[0] == 'r') { // into a table of jumps
            in.source[0] = operand(words.take() + ":d");
            return;
        }
        [[fallthrough]];
    case Opcode::GOTO:
        in.jump_offset = in.offset + std::atoi(words.take().c_str());
        return;
    case Opcode::CALL:
        in.target.offset = in.source[0].offset = operand(words.take() + ":ud").offset;
        in.jump_offset = in.offset + std::atoi(words.take().c_str());
        return;
    case Opcode::RET:
        in.source[0].offset = operand(words.take() + ":ud").offset;
        return;
    case Opcode::SEND: {
        const std::string target = words.take(), address = words.take(), data = words.take();
        in.send = describe_send(comment, in.lanes);
        in.target.offset = register_place(target);
        in.send.address = register_place(address);
        in.send.data = register_place(data);
        return;
    }
    case Opcode::DPAS:
        return take_dpas(words, in, suffix);
    case Opcode::BFN:
        in.function = std::uint8_t(std::strtol(suffix.c_str(), nullptr, 16));
        break;
    default:
        break;
    }
    take_operands(words, in);
}

/// One line of the disassembly; false for an empty one.
bool decode_line(std::string line, Instruction &in) {
    if (line.rfind("/* [", 0) != 0) {
        if (line.find_first_not_of(" \t") == std::string::npos)
            return false;
        throw Fault("not an instruction: " + line);
    }
    in.offset = int(std::strtol(line.c_str() + 4, nullptr, 16));
    line.erase(0, line.find("*/") + 2);
    std::string comment;
    if (const auto slashes = line.find("//"); slashes != std::string::npos) {
        comment = line.substr(slashes);
        line.resize(slashes);
    }
    if (const auto brace = line.find('{'); brace != std::string::npos) {
        in.annotation = annotation_of(line.substr(brace));
        line.resize(brace);
    }
    std::istringstream parts(line + (comment.find(';') == std::string::npos ? "" : comment.substr(comment.rfind(';'))));
    for (std::string part; parts >> part;)
        in.text += (in.text.empty() ? "" : " ") + part;
    Words words(line);
    if (!words.left())
        return false;
    try {
        decode_words(words, comment, in);
        in.pipe = pipe_of(in);
        in.slots = slots_of(in);
    } catch (const Fault &why) {
        fault(in, why.what());
    }
    return true;
}

} // namespace

void fault(const Instruction &in, const std::string &what) {
    std::ostringstream text;
    text << "at 0x" << std::hex << in.offset << ": " << what << ": " << in.text;
    throw Fault(text.str());
}

void decode(Kernel &kernel, const std::uint8_t *code, std::size_t bytes) {
    std::istringstream lines(disassemble(code, bytes));
    for (std::string line; std::getline(lines, line);) {
        Instruction in;
        if (decode_line(line, in))
            kernel.code.push_back(in);
    }
    std::map<int, const Instruction *> by_offset;
    for (const Instruction &in : kernel.code)
        by_offset[in.offset] = &in;
    for (Instruction &in : kernel.code) {
        const bool to_register = in.opcode == Opcode::JMPI && in.source[0].form != Form::NONE;
        const bool jumps = in.opcode == Opcode::JMPI || in.opcode == Opcode::GOTO || in.opcode == Opcode::CALL;
        if (!jumps || to_register)
            continue;
        const auto found = by_offset.find(in.jump_offset);
        if (found == by_offset.end())
            fault(in, "jumps to where no instruction begins");
        in.jump = found->second;
    }
    select_handlers(kernel);
}

} // namespace xe2
