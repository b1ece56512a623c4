#include "compiler.hpp"

#include "dpctl4pybind11.hpp"
#include <pybind11/stl.h>
#include <sycl/sycl.hpp>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;
namespace experimental = sycl::ext::oneapi::experimental;

namespace arcmtp {
namespace {

using Executable = sycl::kernel_bundle<sycl::bundle_state::executable>;
using Texts = std::vector<std::pair<std::string, std::string>>;

Executable build(const sycl::context &context, const sycl::device &device, const std::string &source,
                 const Texts &includes, const std::vector<std::string> &options) {
    const py::gil_scoped_release release;
    experimental::include_files files;
    for (const auto &[name, text] : includes)
        files.add(name, text);
    auto bundle = experimental::create_kernel_bundle_from_source(context, experimental::source_language::sycl, source,
                                                                 experimental::properties{files});
    std::string log;
    try {
        return experimental::build(
            bundle, std::vector<sycl::device>{device},
            experimental::properties{experimental::build_options{options}, experimental::save_log{&log}});
    } catch (const sycl::exception &error) {
        throw std::runtime_error(std::string(error.what()) + "\n" + log);
    }
}

} // namespace

void bind_compiler(py::module_ &module) {
    py::class_<Executable>(module, "Program");
    py::class_<sycl::kernel>(module, "Kernel");
    module.def("build", &build, py::arg("context"), py::arg("device"), py::arg("source"), py::arg("includes"),
               py::arg("options"), "Compile SYCL source text; RuntimeError holds the compiler's log.");
    module.def(
        "kernel", [](Executable &program, const std::string &name) { return program.ext_oneapi_get_kernel(name); },
        py::arg("program"), py::arg("name"));
    module.def("cpu_has_avx512_vnni", [] { return bool(__builtin_cpu_supports("avx512vnni")); }, "By CPUID.");
    module.def("cpu_is_intel", [] { return bool(__builtin_cpu_is("intel")); }, "By CPUID.");
}

} // namespace arcmtp
