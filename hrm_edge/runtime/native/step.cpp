// Threads and the C interface.

#include <condition_variable>
#include <mutex>
#include <system_error>

#include "step.h"

namespace hrm {

// A model, and threads that wait for the next step: a while without sleeping, for it comes at once while a puzzle is
// being solved. Each thread takes a puzzle at a time; those that would leave some without work are shared by all.
class Engine {
  public:
    Engine(const HrmModel& m, int threads) : model_(m), together_(model_, threads), done_(threads) {
        for (int i = 0; i < threads; ++i) {
            alone_.push_back(std::make_unique<Team>(model_, 1));
            scratch_.push_back(std::make_unique<Scratch>(model_));
        }
        try {
            for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { serve(i); });
        } catch (...) {
            stop();
            throw;
        }
    }

    ~Engine() { stop(); }

    void step(int batch, const Puzzle& all) {
        std::lock_guard<std::mutex> one(stepping_);  // Python calls without its lock
        batch_ = batch;
        all_ = all;
        next_.store(batch % int(alone_.size()), std::memory_order_relaxed);
        begin();
        work(0);
        done_.wait();
    }

  private:
    void stop() {
        stop_ = true;
        begin();
        for (auto& thread : threads_) thread.join();
    }

    void begin() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            round_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
    }

    void serve(int index) {
        for (int seen = 0;;) {
            for (int looks = 0; looks < kSpins + kYields && round_.load(std::memory_order_acquire) == seen; ++looks)
                wait_a_little(looks);
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
            lock.unlock();
            ++seen;
            if (stop_) return;
            work(index);
            done_.wait();
        }
    }

    void work(int index) {
        const int shared = batch_ % int(alone_.size());
        scratch_[index]->turn = 0;
        for (int b = 0; b < shared; ++b) Worker(model_, together_, *scratch_[index], index).step(slot(b));
        for (int b; (b = next_.fetch_add(1)) < batch_;)
            Worker(model_, *alone_[index], *scratch_[index], 0).step(slot(b));
    }

    Puzzle slot(int b) const {
        const size_t state = size_t(b) * model_.T * model_.D, s = size_t(b) * model_.S;
        const float* puzzle = all_.puzzle ? all_.puzzle + size_t(b) * (model_.T - model_.S) * model_.D : nullptr;
        return {all_.tokens + s, puzzle, all_.z_h + state, all_.z_l + state, all_.z_h_next + state,
                all_.z_l_next + state, all_.logits + s * model_.V, all_.q + size_t(b) * model_.Q};
    }

    const Model model_;
    Team together_;
    std::vector<std::unique_ptr<Team>> alone_;
    std::vector<std::unique_ptr<Scratch>> scratch_;
    std::vector<std::thread> threads_;
    Barrier done_;
    std::mutex stepping_, mutex_;
    std::condition_variable wake_;
    std::atomic<int> round_{0}, next_{0};
    std::atomic<bool> stop_{false};
    int batch_ = 0;
    Puzzle all_{};
};

}  // namespace hrm

extern "C" {

// Null where there is no memory, or where a thread cannot be started (then `no_thread` is 1). `model` may go after it.
void* hrm_new(const HrmModel* model, int32_t threads, int32_t* no_thread) {
    *no_thread = 0;
    try {
        return new hrm::Engine(*model, threads);
    } catch (const std::system_error&) {
        *no_thread = 1;
    } catch (...) {
    }
    return nullptr;
}

void hrm_free(void* engine) { delete static_cast<hrm::Engine*>(engine); }

// tokens int32 [B, S], puzzle [B, P D] or null, states [B, T, D]; outputs as in the graph
void hrm_step(void* engine, int32_t batch, const int32_t* tokens, const float* puzzle, const float* z_h,
              const float* z_l, float* z_h_next, float* z_l_next, float* logits, float* q) {
    static_cast<hrm::Engine*>(engine)->step(batch, {tokens, puzzle, z_h, z_l, z_h_next, z_l_next, logits, q});
}
}
