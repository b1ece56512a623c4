// Threads of the host that wait for launches.
#pragma once

#include <cstdint>
#include <functional>

namespace xe2 {

/// Call `work` on every core of the host at once, on no more than `pieces`; return when all calls have.
void on_all_cores(std::uint32_t pieces, const std::function<void()> &work);

} // namespace xe2
