// One ACT step of a lattice (hrm_edge/model/groups.py) in float32, on the CPU.
//
// A row is one symbol of one cell: W floats. A block goes over all rows twice, in tiles that stay in the first cache: once
// for what they send to their groups, and, when that has been summed and multiplied, once from the product with gate and
// up to the sum with the state. The norm has no weight, so it is one number per row, and a product of a normalized row is
// the row's product times that number. Threads that share a puzzle have cells of their own and meet twice per block.
//
// Axes: N symbols, W symbol width, S cells, D = N W, F inner, V vocabulary.
#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "product.h"
#include "threads.h"

namespace hrm::lattice {

struct Block {
    Block(const HrmGroupBlock& m, int W, int F)
        : pool(m.pool, nullptr, W, W), row(m.sent[0], nullptr, W, 2 * F, true), column(m.sent[1], nullptr, W, 2 * F, true),
          box(m.sent[2], nullptr, W, 2 * F, true), cell(m.sent[3], m.gate_up_bias, W, 2 * F, true),
          gate_up(m.gate_up, nullptr, W, 2 * F, true), down(m.down, nullptr, F, W) {}
    // A cell's part has the bias of gate and up: each row gets it from one cell.
    Matrix pool, row, column, box, cell, gate_up, down;
};

struct Model {
    explicit Model(const HrmLattice& m)
        : N(m.N), W(m.W), F(m.F), V(m.V), T(N * N), S(N * N), D(N * W), cycles(m.cycles), q_bias(*m.q_bias),
          table(m.embedding, m.embedding + size_t(V) * D), lm_head(m.lm_head, m.lm_head + W),
          q_head(m.q_head, m.q_head + W), cells(3 * N), groups(S) {
        for (int i = 0; i < m.layers; ++i) blocks.emplace_back(m.blocks[i], W, F);
        for (int s = 0; s < S; ++s) {
            const int row = s / N, column = s % N, boxes = N / m.box_columns;
            groups[s] = {row, N + column, 2 * N + row / m.box_rows * boxes + column / m.box_columns};
            for (int group : groups[s]) cells[group].push_back(s);
        }
    }
    const Matrix& from(const Block& block, int group) const {
        return group < N ? block.row : group < 2 * N ? block.column : block.box;
    }
    int N, W, F, V, T, S, D, cycles;
    static constexpr int Q = 1;
    float q_bias;
    std::vector<float> table, lm_head, q_head;   // [V, D], [W], [W]
    std::vector<std::vector<int>> cells;         // of every row, column and box of the board
    std::vector<std::array<int, 3>> groups;      // row, column and box of every cell
    std::vector<Block> blocks;
};

struct Team {
    Team(const Model& m, int threads)
        : first(parts_of(m.S, threads)), first_group(parts_of(3 * m.N, threads)), barrier(threads),
          pooled(size_t(m.S) * m.D), sent(size_t(3) * m.N * m.N * 2 * m.F), votes(size_t(m.S) * m.N) {}
    std::vector<int> first, first_group;  // cell and group of each thread
    Barrier barrier;
    // what rows say to their groups [S, N, W]; what groups say to their rows [3 N, N, 2 F]; each row's part of q [S, N]
    Buffer<float> pooled, sent, votes;
};

struct Scratch {  // one thread's
    explicit Scratch(const Model& m)
        : x(size_t(m.S) * m.D), scale(size_t(m.S) * m.N), cells(size_t(m.S) * m.W), from_cells(size_t(m.S) * 2 * m.F),
          sums(m.D), inner(size_t(kTile) * m.F) {}
    Buffer<float> x, scale;           // state [S, N, W]; 1 / root mean square of its rows [S, N]
    Buffer<float> cells, from_cells;  // sums over a cell's symbols [S, W], and what becomes of them [S, 2 F]
    Buffer<float> sums, inner;        // sums over a group's cells [N, W]; a tile's [kTile, F]
};

constexpr int kSummed = 32;  // floats that are summed at once, in registers; W is a multiple

// to [kSummed] = from(0) + ... + from(count - 1)
template <class From> inline void sum_up(int count, float* to, From from) {
    Floats sums[kSummed / kLanes];
    for (int v = 0; v < kSummed / kLanes; ++v) sums[v] = load<Floats>(from(0) + v * kLanes);
    for (int i = 1; i < count; ++i)
        for (int v = 0; v < kSummed / kLanes; ++v) sums[v] += load<Floats>(from(i) + v * kLanes);
    for (int v = 0; v < kSummed / kLanes; ++v) store(to + v * kLanes, sums[v]);
}

class LatticeStep : public Worker<Model, Team, Scratch> {
  public:
    using Worker::Worker;

    void step(const Puzzle& p) {
        const size_t first = size_t(begin_) * m_.D, end = size_t(end_) * m_.D;
        const float* x = s_.x.get();
        std::copy(p.z_h + first, p.z_h + end, s_.x.get() + first);
        for (int i = 0; i < m_.cycles; ++i) {
            start(p.tokens);
            for (const Block& block : m_.blocks) {
                pool(block);
                team_.barrier.wait();
                send(block);
                team_.barrier.wait();
                feed(block);
            }
        }
        std::copy(x + first, x + end, p.z_h_next + first);
        std::copy(p.z_l + first, p.z_l + end, p.z_l_next + first);
        heads(p);
    }

  private:
    float* row(int r) const { return s_.x.get() + size_t(r) * m_.W; }

    float inverse_norm(const float* x) const {
        Floats squares{};
        for (int w = 0; w < m_.W; w += kLanes) squares += load<Floats>(x + w) * load<Floats>(x + w);
        return 1.f / std::sqrt(total(squares) / m_.W + kEps);
    }

    // x = norm(x + what the puzzle says)
    void start(const int32_t* tokens) {
        for (int s = begin_; s < end_; ++s)
            for (int n = 0; n < m_.N; ++n) {
                const float* given = m_.table.data() + size_t(tokens[s]) * m_.D + n * m_.W;
                float* x = row(s * m_.N + n);
                for (int w = 0; w < m_.W; w += kLanes) store(x + w, load<Floats>(x + w) + load<Floats>(given + w));
                const float by = inverse_norm(x);
                for (int w = 0; w < m_.W; w += kLanes) store(x + w, load<Floats>(x + w) * by);
                s_.scale.get()[s * m_.N + n] = inverse_norm(x);
            }
    }

    // silu(P norm(x)), and its sums over the symbols of own cells
    void pool(const Block& block) {
        float* pooled = team_.pooled.get();
        in_tiles(begin_ * m_.N, end_ * m_.N, [&](auto rows, int t) {
            product<rows.value>(block.pool, row(t), [&](int r, int panel, const Pair& sums) {
                const Floats scale = all(s_.scale.get()[t + r]);
                float* to = pooled + size_t(t + r) * m_.W + panel * kPair;
                store(to, silu(sums[0] * scale));
                store(to + kLanes, silu(sums[1] * scale));
            });
        });
        for (int s = begin_; s < end_; ++s)
            for (int w = 0; w < m_.W; w += kSummed)
                sum_up(m_.N, s_.cells.get() + size_t(s) * m_.W + w,
                       [&](int n) { return pooled + size_t(s) * m_.D + n * m_.W + w; });
        in_tiles(begin_, end_, [&](auto rows, int s) {
            product<rows.value>(block.cell, s_.cells.get() + size_t(s) * m_.W, s_.from_cells.get() + size_t(s) * 2 * m_.F);
        });
    }

    // what own groups send: sums over their cells, multiplied
    void send(const Block& block) {
        for (int group = team_.first_group[index_]; group < team_.first_group[index_ + 1]; ++group) {
            const std::vector<int>& cells = m_.cells[group];
            for (int d = 0; d < m_.D; d += kSummed)
                sum_up(m_.N, s_.sums.get() + d, [&](int i) { return team_.pooled.get() + size_t(cells[i]) * m_.D + d; });
            in_tiles(0, m_.N, [&](auto rows, int n) {
                product<rows.value>(m_.from(block, group), s_.sums.get() + n * m_.W,
                                    team_.sent.get() + size_t(group * m_.N + n) * 2 * m_.F);
            });
        }
    }

    // x += D (silu(gate) up), with [gate, up] = W norm(x) and what the row's groups send
    void feed(const Block& block) {
        in_tiles(begin_ * m_.N, end_ * m_.N, [&](auto rows, int t) {
            const float* from[rows.value][4];
            for (int r = 0; r < rows.value; ++r) {
                const int s = (t + r) / m_.N, n = (t + r) % m_.N;
                for (int i = 0; i < 3; ++i)
                    from[r][i] = team_.sent.get() + size_t(m_.groups[s][i] * m_.N + n) * 2 * m_.F;
                from[r][3] = s_.from_cells.get() + size_t(s) * 2 * m_.F;
            }
            product<rows.value>(block.gate_up, row(t), [&](int r, int panel, const Pair& sums) {
                const Floats scale = all(s_.scale.get()[t + r]);
                Floats inner[2];
                for (int v = 0; v < 2; ++v) {
                    const int at = panel * kPair + v * kLanes;
                    const Floats board = load<Floats>(from[r][0] + at) + load<Floats>(from[r][1] + at);
                    const Floats near = load<Floats>(from[r][2] + at) + load<Floats>(from[r][3] + at);
                    inner[v] = sums[v] * scale + (board + near);
                }
                store(s_.inner.get() + r * m_.F + panel * kLanes, silu(inner[0]) * inner[1]);
            });
            product<rows.value>(block.down, s_.inner.get(), [&](int r, int panel, const Pair& sums) {
                float* x = row(t + r) + panel * kPair;
                store(x, load<Floats>(x) + sums[0]);
                store(x + kLanes, load<Floats>(x + kLanes) + sums[1]);
            });
            for (int r = 0; r < rows.value; ++r) s_.scale.get()[t + r] = inverse_norm(row(t + r));
        });
    }

    // logits of own rows (0 for padding and blank), and q by the thread that has the first
    void heads(const Puzzle& p) {
        const int first_symbol = m_.V - m_.N;
        for (int s = begin_; s < end_; ++s) {
            float* logits = p.logits + size_t(s) * m_.V;
            std::fill_n(logits, first_symbol, 0.f);
            for (int n = 0; n < m_.N; ++n) {
                const int r = s * m_.N + n;
                const float* x = row(r);
                Floats symbol{}, vote{};
                for (int w = 0; w < m_.W; w += kLanes) {
                    symbol += load<Floats>(x + w) * load<Floats>(m_.lm_head.data() + w);
                    vote += load<Floats>(x + w) * load<Floats>(m_.q_head.data() + w);
                }
                logits[first_symbol + n] = total(symbol) * s_.scale.get()[r];
                team_.votes.get()[r] = total(vote) * s_.scale.get()[r];
            }
        }
        team_.barrier.wait();
        if (begin_ != 0) return;
        double sum = 0;
        for (int r = 0; r < m_.S * m_.N; ++r) sum += team_.votes.get()[r];
        *p.q = float(sum / (m_.S * m_.N)) + m_.q_bias;
    }
};

}  // namespace hrm::lattice
