#pragma once

#include "thread.hpp"

namespace xe2 {

/// Before an instruction runs: what its results will hold. A fault where it depends on what nothing has written.
void follow_poison(Thread &t, const Instruction &in);

} // namespace xe2
