// Threads that share the puzzles of a step, or the rows of one puzzle.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace hrm {

// A waiting thread looks so often (about 30 microseconds) before it lets others run between two looks; one that waits
// for the next step goes to sleep after so many of those (about 2 ms).
constexpr int kSpins = 1 << 11, kYields = 1 << 12;

inline void wait_a_little(int looks) {
    if (looks >= kSpins) return std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Waits without sleeping: the others are microseconds behind.
class Barrier {
  public:
    explicit Barrier(int threads) : threads_(threads) {}
    void wait() {
        if (threads_ == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int looks = 0; round_.load(std::memory_order_acquire) == round; looks += looks < kSpins) wait_a_little(looks);
    }

  private:
    const int threads_;
    std::atomic<int> arrived_{0}, round_{0};
};

struct Puzzle {  // one slot's inputs and outputs
    const int32_t* tokens;
    const float *puzzle, *z_h, *z_l;
    float *z_h_next, *z_l_next, *logits, *q;
};

struct Step {  // of a model of any kind
    virtual ~Step() = default;
    virtual void step(int batch, const Puzzle& all) = 0;
};

// The positions 0 to count - 1 in consecutive parts, one for each of the threads: where each begins, and their end.
inline std::vector<int> parts_of(int count, int threads) {
    std::vector<int> first;
    for (int i = 0; i <= threads; ++i) first.push_back(count * i / threads);
    return first;
}

// What a thread has at hand for its part of a puzzle's step. Model is made from what Python hands over; Team is what
// threads that share a puzzle have in common, with the first position of each; Scratch is one thread's memory.
template <class ModelOf, class TeamOf, class ScratchOf> class Worker {
  public:
    using Model = ModelOf;
    using Team = TeamOf;
    using Scratch = ScratchOf;

    Worker(const Model& m, Team& team, Scratch& scratch, int index)
        : m_(m), team_(team), s_(scratch), index_(index), begin_(team.first[index]), end_(team.first[index + 1]) {}

  protected:
    const Model& m_;
    Team& team_;
    Scratch& s_;
    const int index_, begin_, end_;  // of the thread; its positions
};

// A model, and threads that wait for the next step: a while without sleeping, for it comes at once while a puzzle is
// being solved. Each thread takes a puzzle at a time; those that would leave some without work are shared by all.
//
// Work::step is a thread's part of a puzzle's step; see Worker, which it extends.
template <class Work> class Engine : public Step {
    using Model = typename Work::Model;
    using Team = typename Work::Team;
    using Scratch = typename Work::Scratch;

  public:
    template <class Given> Engine(const Given& m, int threads) : model_(m), together_(model_, threads), done_(threads) {
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

    ~Engine() override { stop(); }

    void step(int batch, const Puzzle& all) override {
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
        Work with_others(model_, together_, *scratch_[index], index);
        for (int b = 0; b < shared; ++b) with_others.step(slot(b));
        Work alone(model_, *alone_[index], *scratch_[index], 0);
        for (int b; (b = next_.fetch_add(1)) < batch_;) alone.step(slot(b));
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
