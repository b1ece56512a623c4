#include "send.hpp"

#include <cstdio>
#include <cstdlib>
#include <set>

namespace xe2 {
namespace {

std::vector<std::string> split(const std::string &text) {
    std::vector<std::string> parts{""};
    for (const char c : text) {
        if (c == '.')
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

/// "d32x16t", "d64x2", "d32", "d16u32".
bool shape(const std::string &text, Send &send) {
    int bits = 0, count = 1, held = 0, end = 0;
    if (std::sscanf(text.c_str(), "d%du%d%n", &bits, &held, &end) == 2 && std::size_t(end) == text.size()) {
        send.memory_bytes = std::uint8_t(bits / 8);
        send.bytes = std::uint8_t(held / 8);
        return held == 32 && (bits == 8 || bits == 16);
    }
    if (std::sscanf(text.c_str(), "d%d%n", &bits, &end) != 1)
        return false;
    std::string rest = text.substr(end);
    if (!rest.empty() && rest[0] == 'x') {
        char *after = nullptr;
        count = int(std::strtol(rest.c_str() + 1, &after, 10));
        rest = after;
    }
    send.block = rest == "t";
    send.bytes = send.memory_bytes = std::uint8_t(bits / 8);
    send.count = std::uint8_t(count);
    return (rest.empty() || rest == "t") && (bits == 32 || bits == 64) && count >= 1 && count <= 64;
}

const std::set<std::string> CACHE_HINTS{"ca", "cc", "uc", "wb", "wt", "st", "df", "ri"};

} // namespace

Send describe_send(const std::string &comment, int lanes) {
    Send send;
    if (comment.find("end of thread") != std::string::npos)
        return send;
    if (comment.find("signal barrier") != std::string::npos) {
        send.message = Message::SIGNAL;
        return send;
    }
    const auto semicolon = comment.rfind("; ");
    std::string words = semicolon == std::string::npos ? "" : comment.substr(semicolon + 2);
    if (const auto plus = words.find("[A+"); plus != std::string::npos) {
        send.displacement = std::int32_t(std::strtol(words.c_str() + plus + 3, nullptr, 0));
        words.resize(plus);
    } else if (const auto minus = words.find("[A-"); minus != std::string::npos) {
        send.displacement = -std::int32_t(std::strtol(words.c_str() + minus + 3, nullptr, 0));
        words.resize(minus);
    }
    while (!words.empty() && words.back() == ' ')
        words.pop_back();
    const std::vector<std::string> parts = split(words);
    bool known = parts.size() >= 3 && (parts[1] == "ugm" || parts[1] == "slm");
    if (known && parts[0] == "fence") {
        send.message = Message::FENCE;
        send.space = parts[1] == "slm" ? Space::TEAM : Space::GLOBAL;
        send.evict = parts[2] == "invalidate" || parts[2] == "evict";
        known = send.evict || parts[2] == "none";
    } else if (known) {
        static const std::pair<const char *, Message> MESSAGES[] = {{"load", Message::LOAD},
                                                                    {"store", Message::STORE},
                                                                    {"atomic_iinc", Message::ATOMIC_INC},
                                                                    {"atomic_iadd", Message::ATOMIC_ADD}};
        bool named = false;
        for (const auto &[name, message] : MESSAGES)
            if (parts[0] == name)
                send.message = message, named = true;
        send.space = parts[1] == "slm" ? Space::TEAM : Space::GLOBAL;
        known = named && shape(parts[2], send) && parts.size() >= 4 && (parts[3] == "a32" || parts[3] == "a64");
        send.wide = parts.size() >= 4 && parts[3] == "a64";
        for (std::size_t i = 4; i < parts.size(); ++i) {
            if (parts[i] == "bti[255]")
                send.space = Space::ARGUMENTS;
            else
                known = known && (parts[i] == "flat" || CACHE_HINTS.count(parts[i]));
        }
        const bool counts = send.message == Message::ATOMIC_INC || send.message == Message::ATOMIC_ADD;
        known = known && (!counts || (send.bytes == 4 && send.memory_bytes == 4 && send.count == 1 && !send.block));
        known = known && (send.wide == (send.space == Space::GLOBAL)) && (!send.block || lanes == 1);
    }
    if (!known)
        throw Fault("no such message is emulated (" + words + ")");
    return send;
}

} // namespace xe2
