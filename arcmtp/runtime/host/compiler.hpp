// Kernels from SYCL source text, compiled at run time: dpctl has no call for it.
#pragma once

#include <pybind11/pybind11.h>

namespace arcmtp {

// Adds `Program`, `Kernel`, `build`, `kernel` and `cpu_has_avx512_vnni`.
void bind_compiler(pybind11::module_ &module);

} // namespace arcmtp
