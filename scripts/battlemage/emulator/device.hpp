// The emulated card: its memory, modules and command lists, as the Level Zero driver's calls name them.
#pragma once

#include "launch.hpp"

#include <functional>
#include <map>
#include <string>
#include <unordered_map>

namespace xe2 {

/// A kernel object with the arguments and work-group size that were set on it.
struct KernelObject {
    std::shared_ptr<Kernel> kernel;
    std::array<std::uint32_t, 3> team{1, 1, 1};
    std::vector<std::vector<std::uint8_t>> arguments;
};

class Device {
  public:
    /// Of the whole process; never destroyed, since calls come until its very end. Options are read from the
    /// environment.
    static Device &instance();

    std::recursive_mutex lock; // held by every call
    Memory memory;
    Options options;
    std::unordered_map<const void *, std::vector<std::shared_ptr<Kernel>>> modules;
    std::unordered_map<const void *, KernelObject> kernels;

    void add_module(const void *module, const std::vector<std::uint8_t> &binary);
    /// The memory behind an address; a Fault if there is none.
    std::uint8_t *host(const void *address, std::size_t bytes, const char *what,
                       std::uint8_t **defined = nullptr) const;

    /// Begin to record a command list: what is appended runs when the list does. Others run what is appended at once.
    void record(const void *list) { recorded_[list].clear(); }
    void forget(const void *list) { recorded_.erase(list); }
    void append(const void *list, std::function<void()> work);
    void run(const void *list);

    Launch launch(const KernelObject &object, std::array<std::uint32_t, 3> groups, std::array<std::uint32_t, 3> team,
                  const std::function<const std::uint8_t *(int)> &argument) const;
    void execute(const Launch &launch);
    void copy(void *to, const void *from, std::size_t bytes);
    void fill(void *to, const std::vector<std::uint8_t> &pattern, std::size_t bytes);

    /// Everything counted since the beginning or the last reset, as JSON.
    std::string report() const;
    void reset_counts() { counts_.clear(); }

  private:
    unsigned launches_ = 0;
    std::unordered_map<const void *, std::vector<std::function<void()>>> recorded_;
    std::map<std::string, std::pair<std::shared_ptr<Kernel>, Counts>> counts_; // by the kernel's name
};

/// Prints one line and ends the process: nothing that was computed so far can be relied on.
[[noreturn]] void stop(const std::string &why);

} // namespace xe2
