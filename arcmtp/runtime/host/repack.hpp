#pragma once

#include <pybind11/pybind11.h>

namespace arcmtp {

// Adds `repack` and `requant_int4`: from a GGUF file's rows to the device weight formats of docs/design.md.
void bind_repack(pybind11::module_ &module);

} // namespace arcmtp
