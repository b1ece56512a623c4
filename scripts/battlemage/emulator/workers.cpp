#include "workers.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace xe2 {
namespace {

/// One thread for each core besides the caller's. They are never joined: the process may end while they wait.
class Workers {
  public:
    Workers() : count_(std::thread::hardware_concurrency() > 1 ? std::thread::hardware_concurrency() - 1 : 0) {
        for (unsigned i = 0; i < count_; ++i)
            std::thread([this] { wait_for_work(); }).detach();
    }

    void run(std::uint32_t pieces, const std::function<void()> &work) {
        const unsigned helpers = pieces > 1 ? (pieces - 1 < count_ ? pieces - 1 : count_) : 0;
        if (helpers) {
            const std::lock_guard<std::mutex> guard(lock_);
            work_ = &work;
            wanted_ = running_ = helpers;
        }
        if (helpers)
            wake_.notify_all();
        work();
        if (helpers) {
            std::unique_lock<std::mutex> guard(lock_);
            done_.wait(guard, [this] { return running_ == 0; });
        }
    }

  private:
    const unsigned count_;
    std::mutex lock_;
    std::condition_variable wake_, done_;
    const std::function<void()> *work_ = nullptr;
    unsigned wanted_ = 0, running_ = 0;

    void wait_for_work() {
        std::unique_lock<std::mutex> guard(lock_);
        for (;;) {
            wake_.wait(guard, [this] { return wanted_ != 0; });
            --wanted_;
            const std::function<void()> &work = *work_;
            guard.unlock();
            work();
            guard.lock();
            if (--running_ == 0)
                done_.notify_one();
        }
    }
};

} // namespace

void on_all_cores(std::uint32_t pieces, const std::function<void()> &work) {
    static Workers &workers = *new Workers; // never destroyed
    workers.run(pieces, work);
}

} // namespace xe2
