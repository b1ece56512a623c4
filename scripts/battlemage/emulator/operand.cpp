// An operand from its text: "r5.0<8;8,1>:d", "-(abs)acc0.0<1;1,0>:f", "r[a0.0,4]<0;1,0>:ud", "0x3F800000:f",
// "null<1>:d".
#include "operand.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace xe2 {
namespace {

const std::map<std::string, Type> TYPES{{"ud", Type::UD}, {"d", Type::D},   {"uw", Type::UW}, {"w", Type::W},
                                        {"ub", Type::UB}, {"b", Type::B},   {"uq", Type::UQ}, {"q", Type::Q},
                                        {"f", Type::F},   {"hf", Type::HF}, {"v", Type::V},   {"uv", Type::UV}};

[[noreturn]] void unknown(const char *what, const std::string &text) {
    throw Fault(std::string("no such ") + what + " is emulated: " + text);
}

bool take(std::string &text, const char *prefix) {
    if (text.rfind(prefix, 0) != 0)
        return false;
    text.erase(0, std::strlen(prefix));
    return true;
}

/// "…:type" loses its type, which is returned.
Type take_type(std::string &text) {
    const auto colon = text.rfind(':');
    if (colon == std::string::npos)
        return Type::NONE;
    const auto found = TYPES.find(text.substr(colon + 1));
    if (found == TYPES.end())
        unknown("type", text);
    text.resize(colon);
    return found->second;
}

Operand immediate(const std::string &text, Type type) {
    Operand o;
    o.type = type;
    o.form = type == Type::V || type == Type::UV ? Form::LANES : Form::IMMEDIATE;
    const bool hexadecimal = text.rfind("0x", 0) == 0;
    if ((type == Type::F || type == Type::HF) && !hexadecimal)
        unknown("immediate", text);
    o.integer =
        hexadecimal ? std::int64_t(std::strtoull(text.c_str(), nullptr, 0)) : std::strtoll(text.c_str(), nullptr, 0);
    switch (type) { // hexadecimal digits are bits
    case Type::D:
        o.integer = std::int32_t(o.integer);
        break;
    case Type::W:
        o.integer = std::int16_t(o.integer);
        break;
    case Type::B:
        o.integer = std::int8_t(o.integer);
        break;
    case Type::F: {
        const auto bits = std::uint32_t(o.integer);
        std::memcpy(&o.real, &bits, 4);
        break;
    }
    case Type::HF: {
        const auto bits = std::uint16_t(o.integer);
        _Float16 half;
        std::memcpy(&half, &bits, 2);
        o.real = half;
        break;
    }
    case Type::NONE:
        unknown("immediate", text);
    default:
        break;
    }
    return o;
}

/// "…<region>" loses its region, which goes into the operand. Without one elements lie one behind the other.
void take_region(std::string &text, Operand &o) {
    const auto angle = text.find('<');
    o.vertical = o.width = o.horizontal = 1;
    if (angle == std::string::npos)
        return;
    int v = 0, w = 0, h = 0;
    char end = 0;
    const char *const region = text.c_str() + angle;
    if (std::sscanf(region, "<%d;%d,%d>", &v, &w, &h) == 3) {
        o.vertical = v, o.width = w, o.horizontal = h;
    } else if (std::sscanf(region, "<%d;%d>", &v, &h) == 2) { // of three sources: the width is what v and h leave
        if (h != 0 && (v == 0 || v % h))
            unknown("region", text);
        o.vertical = v, o.width = h ? v / h : 1, o.horizontal = h;
    } else if (std::sscanf(region, "<%d%c", &h, &end) == 2 && end == '>') {
        o.vertical = o.horizontal = h, o.width = 1;
    } else
        unknown("region", text);
    if (o.width == 0)
        unknown("region", text);
    text.resize(angle);
}

/// Where a register lies: "r5.3", "acc0.0", "a0.1", "f1.0", "cr0.0", "null".
int place(const std::string &text, int size) {
    int number = 0, part = 0;
    const char *const t = text.c_str();
    const auto within = [&](int count) {
        if (number >= count)
            unknown("register", text);
        return number;
    };
    if (text == "null")
        return NULL_REGISTER;
    if (std::sscanf(t, "r%d.%d", &number, &part) >= 1)
        return within(MAX_REGISTERS) * REGISTER + size * part;
    if (std::sscanf(t, "acc%d.%d", &number, &part) >= 1)
        return ACC + within(16) * REGISTER + size * part;
    if (std::sscanf(t, "a0.%d", &part) == 1)
        return A0 + size * part;
    if (std::sscanf(t, "f%d.%d", &number, &part) == 2)
        return FLAGS + 4 * within(4) + 2 * part;
    if (text == "cr0.0")
        return CR0;
    unknown("register", text);
}

Form form_of(const Operand &o) {
    if (o.offset == NULL_REGISTER)
        return Form::NONE;
    if (o.vertical == 0 && (o.width == 1 || o.horizontal == 0))
        return Form::SCALAR;
    const bool dense = o.width == 1 ? o.vertical == 1 : o.horizontal == 1 && o.vertical == o.width;
    return dense ? Form::CONTIGUOUS : Form::STRIDED;
}

} // namespace

Operand operand(std::string text) {
    Operand o;
    const Type type = take_type(text);
    if (std::isdigit(text[0]) || (text[0] == '-' && std::isdigit(text[1])))
        return immediate(text, type);
    o.type = type;
    o.negate = take(text, "-");
    o.invert = take(text, "~");
    o.absolute = take(text, "(abs)");
    take_region(text, o);
    if (o.invert && (o.negate || o.absolute))
        unknown("operand", text);
    if (take(text, "r[a0.")) {
        int part = 0, displacement = 0;
        if (std::sscanf(text.c_str(), "%d,%d]", &part, &displacement) < 1)
            unknown("operand", text);
        o.form = Form::INDIRECT;
        o.offset = A0 + 2 * part;
        o.displacement = std::int16_t(displacement);
        return o;
    }
    o.offset = place(text, type == Type::NONE ? 4 : size_of(type));
    o.form = form_of(o);
    return o;
}

Operand macro_operand(std::string text) {
    Operand o;
    o.type = take_type(text);
    o.negate = take(text, "-");
    take_region(text, o);
    o.vertical = o.width = o.horizontal = 1;
    const auto dot = text.find('.');
    const std::string part = dot == std::string::npos ? "" : text.substr(dot + 1);
    if (part != "nomme" && (part.size() != 4 || part.rfind("mme", 0) != 0))
        unknown("operand", text);
    o.integer = part == "nomme" ? -1 : part[3] - '0';
    o.offset = place(text.substr(0, dot), 4);
    o.form = Form::CONTIGUOUS;
    return o;
}

int flag_place(const std::string &text) {
    if (text.size() != 4 || text[0] != 'f' || text[2] != '.')
        unknown("flag", text);
    return place(text, 2);
}

int register_place(const std::string &text) { return place(text.substr(0, text.find(':')), 4); }

} // namespace xe2
