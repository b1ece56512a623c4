#include "kernels.hpp"

#include "dpctl4pybind11.hpp"
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <sys/mman.h>

#include <chrono>

namespace py = pybind11;
namespace experimental = sycl::ext::oneapi::experimental;

namespace arcmtp {
namespace {

using Executable = sycl::kernel_bundle<sycl::bundle_state::executable>;
using Texts = std::vector<std::pair<std::string, std::string>>;

Executable build(const sycl::context &context, const sycl::device &device, const std::string &source,
                 const Texts &includes, const std::vector<std::string> &options) {
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

Argument argument_of(const py::handle &value) {
    if (py::hasattr(value, "pointer"))
        return reinterpret_cast<void *>(value.attr("pointer").cast<std::uintptr_t>());
    if (py::isinstance<py::float_>(value))
        return value.cast<float>();
    return value.cast<std::int32_t>();
}

/// The struct whose members are these pointers and numbers.
Struct struct_of(const std::vector<Argument> &members) {
    Struct bytes;
    const auto align = [&](std::size_t size) { bytes.resize((bytes.size() + size - 1) / size * size); };
    const auto append = [&](const auto &value) {
        align(sizeof value);
        const auto *first = reinterpret_cast<const std::byte *>(&value);
        bytes.insert(bytes.end(), first, first + sizeof value);
    };
    for (const Argument &member : members)
        std::visit(append, member);
    align(alignof(void *));
    return bytes;
}

void set_arguments(sycl::handler &handler, const std::vector<Argument> &values) {
    int index = 0;
    for (const Argument &argument : values)
        std::visit([&](auto value) { handler.set_arg(index++, value); }, argument);
}
void set_arguments(sycl::handler &handler, const Struct &bytes) {
    handler.set_arg(0, experimental::raw_kernel_arg{bytes.data(), bytes.size()});
}

std::string graph_support(const sycl::device &device) {
    if (device.has(sycl::aspect::ext_oneapi_graph))
        return "full";
    return device.has(sycl::aspect::ext_oneapi_limited_graph) ? "limited" : "none";
}

} // namespace

void LaunchList::extend(const LaunchList &other) {
    launches_.insert(launches_.end(), other.launches_.begin(), other.launches_.end());
}

void Launch::submit(sycl::queue &queue) const {
    experimental::submit(queue, [&](sycl::handler &handler) { describe(handler); });
}

void Launch::describe(sycl::handler &handler) const {
    std::visit([&](const auto &values) { set_arguments(handler, values); }, arguments);
    handler.parallel_for(sycl::nd_range<1>{groups * team, team}, kernel);
}

sycl::event LaunchList::submit(sycl::queue &queue) const {
    if (launches_.empty())
        return {};
    for (auto launch = launches_.begin(); launch != launches_.end() - 1; ++launch)
        launch->submit(queue);
    return queue.submit([&](sycl::handler &handler) { launches_.back().describe(handler); });
}

namespace {

template <class WORK> double milliseconds(WORK work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
}

} // namespace

Graph::Graph(const LaunchList &launches, sycl::queue &queue) : recorded_(queue.get_context(), queue.get_device()) {
    capture_ms_ = milliseconds([&] {
        recorded_.begin_recording(queue);
        launches.submit(queue);
        recorded_.end_recording(queue);
    });
    finalise_ms_ = milliseconds([&] { executable_.emplace(recorded_.finalize()); });
}

sycl::event Graph::replay(sycl::queue &queue) { return queue.ext_oneapi_graph(*executable_); }

void Graph::describe(const std::string &path) const { recorded_.print_graph(path, true); }

std::vector<std::string> LaunchList::names() const {
    std::vector<std::string> names;
    for (const Launch &launch : launches_)
        names.push_back(launch.name);
    return names;
}

void bind_kernels(py::module_ &module) {
    py::class_<Executable>(module, "Program");
    py::class_<sycl::kernel>(module, "Kernel");

    module.def(
        "build",
        [](const sycl::context &context, const sycl::device &device, const std::string &source, const Texts &includes,
           const std::vector<std::string> &options) {
            py::gil_scoped_release release;
            return build(context, device, source, includes, options);
        },
        py::arg("context"), py::arg("device"), py::arg("source"), py::arg("includes"), py::arg("options"),
        "Compile SYCL source text; RuntimeError holds the compiler's log.");
    module.def(
        "kernel", [](Executable &program, const std::string &name) { return program.ext_oneapi_get_kernel(name); },
        py::arg("program"), py::arg("name"));
    module.def("cpu_has_avx512_vnni", [] { return bool(__builtin_cpu_supports("avx512vnni")); }, "By CPUID.");
    module.def(
        "use_huge_pages",
        [](std::uintptr_t address, std::size_t bytes) {
            const std::uintptr_t page = 4096, first = (address + page - 1) / page * page;
            const std::uintptr_t last = (address + bytes) / page * page;
            if (last > first)
                madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
        },
        py::arg("address"), py::arg("bytes"), "Ask Linux for large pages there; it may not have any.");
    module.def("graph_support", &graph_support, py::arg("device"), "'full', 'limited' or 'none'.");

    py::class_<sycl::event>(module, "Event").def("wait", [](sycl::event self) {
        py::gil_scoped_release release;
        self.wait_and_throw();
    });
    py::class_<LaunchList>(module, "LaunchList")
        .def(py::init<>())
        .def(
            "add",
            [](py::object self, std::string name, const sycl::kernel &kernel, std::size_t groups, std::size_t team,
               bool packed, const py::args &arguments) {
                std::vector<Argument> values;
                for (const py::handle &value : arguments)
                    values.push_back(argument_of(value));
                Launch launch{std::move(name), kernel, groups, team, std::move(values)};
                if (packed)
                    launch.arguments = struct_of(std::get<0>(launch.arguments));
                self.cast<LaunchList &>().add(std::move(launch));
                py::detail::keep_alive_impl(self, arguments); // the buffers live as long as the list
            },
            py::arg("name"), py::arg("kernel"), py::arg("groups"), py::arg("team"), py::arg("packed"))
        .def("extend", &LaunchList::extend, py::keep_alive<1, 2>())
        .def("names", &LaunchList::names)
        .def("__len__", [](const LaunchList &self) { return self.names().size(); })
        .def(
            "submit",
            [](const LaunchList &self, sycl::queue queue) {
                py::gil_scoped_release release;
                return self.submit(queue);
            },
            py::arg("queue"));
    py::class_<Graph>(module, "Graph")
        .def(py::init([](const LaunchList &launches, sycl::queue queue) {
                 py::gil_scoped_release release;
                 return Graph(launches, queue);
             }),
             py::arg("launches"), py::arg("queue"), py::keep_alive<1, 2>())
        .def(
            "replay",
            [](Graph &self, sycl::queue queue) {
                py::gil_scoped_release release;
                return self.replay(queue);
            },
            py::arg("queue"))
        .def("describe", &Graph::describe, py::arg("path"))
        .def_property_readonly("nodes", &Graph::nodes)
        .def_property_readonly("capture_ms", &Graph::capture_ms)
        .def_property_readonly("finalise_ms", &Graph::finalise_ms);
    module.def(
        "write",
        [](sycl::queue queue, std::uintptr_t to, const py::array_t<std::uint8_t, py::array::c_style> &from) {
            const void *source = from.data();
            const std::size_t bytes = from.nbytes();
            py::gil_scoped_release release;
            queue.memcpy(reinterpret_cast<void *>(to), source, bytes).wait();
        },
        py::arg("queue"), py::arg("to"), py::arg("source"), "Copy host bytes to a device address and wait.");
    module.def(
        "read",
        [](sycl::queue queue, std::uintptr_t from, py::array_t<std::uint8_t, py::array::c_style> to) {
            void *target = to.mutable_data();
            const std::size_t bytes = to.nbytes();
            py::gil_scoped_release release;
            queue.memcpy(target, reinterpret_cast<const void *>(from), bytes).wait();
        },
        py::arg("queue"), py::arg("source"), py::arg("target"), "Copy bytes from a device address and wait.");
    module.def(
        "copy",
        [](sycl::queue queue, std::uintptr_t to, std::uintptr_t from, std::size_t bytes) {
            py::gil_scoped_release release;
            queue.memcpy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes).wait();
        },
        py::arg("queue"), py::arg("to"), py::arg("source"), py::arg("bytes"),
        "Copy bytes from one device address to another and wait.");
    module.def(
        "fill",
        [](sycl::queue queue, std::uintptr_t to, int byte, std::size_t bytes) {
            py::gil_scoped_release release;
            queue.memset(reinterpret_cast<void *>(to), byte, bytes).wait();
        },
        py::arg("queue"), py::arg("to"), py::arg("byte"), py::arg("bytes"),
        "Set bytes from a device address on and wait.");
    module.def(
        "wait",
        [](sycl::queue queue) {
            py::gil_scoped_release release;
            queue.wait_and_throw();
        },
        py::arg("queue"), "Wait for everything on the queue, without the GIL.");
}

} // namespace arcmtp
