// The C interface.

#include <system_error>

#include "lattice.h"
#include "step.h"

namespace {

// Null where there is no memory, or where a thread cannot be started (then `no_thread` is 1).
template <class Work, class Given> void* engine(const Given& model, int32_t threads, int32_t* no_thread) {
    *no_thread = 0;
    try {
        return static_cast<hrm::Step*>(new hrm::Engine<Work>(model, threads));
    } catch (const std::system_error&) {
        *no_thread = 1;
    } catch (...) {
    }
    return nullptr;
}

}  // namespace

extern "C" {

// `model` may go after it
void* hrm_new(const HrmModel* model, int32_t threads, int32_t* no_thread) {
    return engine<hrm::AttentionStep>(*model, threads, no_thread);
}
void* hrm_new_lattice(const HrmLattice* model, int32_t threads, int32_t* no_thread) {
    return engine<hrm::lattice::LatticeStep>(*model, threads, no_thread);
}

void hrm_free(void* engine) { delete static_cast<hrm::Step*>(engine); }

// tokens int32 [B, S], puzzle [B, P D] or null, states [B, T, D]; outputs as in the graph
void hrm_step(void* engine, int32_t batch, const int32_t* tokens, const float* puzzle, const float* z_h,
              const float* z_l, float* z_h_next, float* z_l_next, float* logits, float* q) {
    static_cast<hrm::Step*>(engine)->step(batch, {tokens, puzzle, z_h, z_l, z_h_next, z_l_next, logits, q});
}
}
