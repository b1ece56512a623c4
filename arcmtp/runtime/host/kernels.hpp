// Kernels from SYCL source text and lists of their launches: the two things that dpctl has no call for.
#pragma once

#include <pybind11/pybind11.h>
#include <sycl/sycl.hpp>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace arcmtp {

using Argument = std::variant<void *, std::int32_t, float>;

/// One kernel call: `groups` work-groups of `team` work-items each, with its arguments in order.
struct Launch {
    std::string name;
    sycl::kernel kernel;
    std::size_t groups;
    std::size_t team;
    std::vector<Argument> arguments;
};

/// Launches in the order in which they run.
class LaunchList {
  public:
    void add(std::string name, const sycl::kernel &kernel, std::size_t groups, std::size_t team,
             std::vector<Argument> arguments);
    void extend(const LaunchList &other);
    void submit(sycl::queue &queue) const;
    std::vector<std::string> names() const;

  private:
    std::vector<Launch> launches_;
};

void bind_kernels(pybind11::module_ &module);

} // namespace arcmtp
