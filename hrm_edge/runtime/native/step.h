// One ACT step of an INT8 artifact on the CPU, in one pass through the caches.
//
// A runtime that goes operator by operator spends most of a small model's step between the operators. Here all that a
// row (a position of the sequence) goes through between two attentions happens while the row lies in the first cache:
// rounding to INT8, product, residual, norm, gate. Rows meet in attention alone, so threads that share a puzzle meet
// once per layer.
//
// Arithmetic is that of the artifact's graph: products of INT8 with INT8 exact in int32, everything else float32.

#pragma once

#include <cmath>
#include <vector>

#include "product.h"
#include "threads.h"

namespace hrm {

constexpr float kHidden = -1e30f;  // score of a column that pads attention's keys

// What the threads that share one puzzle have in common: keys and values, twice, so that one barrier a layer is enough.
struct Team {
    Team(const HrmModel& m, int threads) : first(parts_of(m.T, threads)), barrier(threads) {
        for (auto& rows : keys) rows = Buffer<float>(size_t(m.T) * m.D);
        for (auto& rows : values) rows = Buffer<float>(size_t(m.T) * m.D);
    }
    std::vector<int> first;  // row of each thread
    Barrier barrier;
    Buffer<float> keys[2], values[2];  // [T, D]
};

struct Scratch {  // one thread's
    explicit Scratch(const HrmModel& m)
        : columns(padded(m.T, kLanes)), injection(size_t(m.T) * m.D), query(size_t(m.T) * m.D),
          x(size_t(m.T) * m.D), attended(size_t(m.T) * m.D), linked(m.h_to_l ? size_t(m.T) * m.D : 0),
          wide(size_t(kBlock) * std::max(3 * m.D, 2 * m.F)), keys(size_t(m.D / m.H) * columns),
          scores(size_t(kTile) * std::max(columns, padded(m.most_seen, kLanes))),
          codes(size_t(kBlock) * std::max(m.D, m.F)) {}
    int columns;  // T padded to whole vectors
    Buffer<float> injection, query, x, attended, linked;  // [T, D]
    Buffer<float> wide, keys, scores;                     // a product's rows; a head's [Dh, columns]; [kTile, columns]
    Buffer<Code> codes;
};

struct Visible {  // what the heads' queries see
    explicit Visible(const HrmModel& m)
        : T(m.T), most(m.most_seen), counts(m.seen_count, m.seen_count + m.H),
          positions(m.seen, m.seen + (m.seen ? size_t(m.H) * m.T * m.most_seen : 0)) {}
    const int32_t* of(int h, int t) const { return positions.data() + (size_t(h) * T + t) * most; }
    int T, most;
    std::vector<int32_t> counts, positions;
};

struct Model : HrmModel {
    explicit Model(const HrmModel& m)
        : HrmModel(m), table(copy(m.embedding, size_t(V) * D)), place(copy(m.positions, size_t(T) * D)),
          cosines(copy(m.cos, size_t(T) * D / H / 2)), sines(copy(m.sin, size_t(T) * D / H / 2)),
          visible(m), head(size_t(D) * padded(V, kLanes)), head_bias(padded(V, kLanes)),
          halting(copy(m.q_head, size_t(m.pooled ? 2 : 1) * D * Q)), bias(copy(m.q_bias, Q)),
          normal(copy(m.norms, size_t(l_layers + h_layers + 1) * 4 * D)) {
        for (int i = 0; i < 4 * (l_layers + h_layers); ++i) layers.emplace_back(m.linears[i]);
        for (int d = 0; d < D; ++d) std::copy_n(m.lm_head + size_t(d) * V, V, head.get() + size_t(d) * padded(V, kLanes));
        if (m.lm_bias) std::copy_n(m.lm_bias, V, head_bias.get());
        if (m.h_to_l) to_l = Matrix(m.h_to_l, m.h_to_l_bias, D, D), to_h = Matrix(m.l_to_h, m.l_to_h_bias, D, D);
    }
    // weight [D] and bias [D] of the LayerNorm after attention (0) or MLP (1) of a layer, or at a level's entry
    const float* norm(int layer, int which) const { return norms ? normal.get() + size_t(2 * layer + which) * 2 * D : nullptr; }
    const float* entry(int level) const { return norm(l_layers + h_layers, level); }
    static Buffer<float> copy(const float* from, size_t n) {
        Buffer<float> to(from ? n : 0);
        if (from) std::copy_n(from, n, to.get());
        return to;
    }
    bool few(int h) const { return visible.counts[h] > 0; }
    std::vector<Linear> layers;
    Buffer<float> table, place, cosines, sines;
    Visible visible;
    Buffer<float> head, head_bias, halting, bias, normal;
    Matrix to_l, to_h;
};

class AttentionStep : public Worker<Model, Team, Scratch> {
  public:
    using Worker::Worker;

    void step(const Puzzle& p) {
        embed(p);
        std::copy(p.z_h + at(begin_), p.z_h + at(end_), p.z_h_next + at(begin_));
        std::copy(p.z_l + at(begin_), p.z_l + at(end_), p.z_l_next + at(begin_));
        for (int i = 0; i < m_.h_cycles; ++i) {
            for (int j = 0; j < m_.l_cycles; ++j)
                level(0, p.z_l_next, linked(m_.to_l, p.z_h_next), s_.injection.get());
            level(1, p.z_h_next, linked(m_.to_h, p.z_l_next), nullptr);
        }
        heads(p);
    }

  private:
    size_t at(int row) const { return size_t(row) * m_.D; }

    void embed(const Puzzle& p) {
        const int first = m_.T - m_.S;
        for (int t = begin_; t < end_; ++t) {
            const float* from = t < first ? p.puzzle + at(t) : m_.table.get() + at(p.tokens[t - first]);
            const float by = t < first ? m_.puzzle_scale : 1.f;
            for (int d = 0; d < m_.D; ++d)
                s_.injection.get()[at(t) + d] = from[d] * by + (m_.positions ? m_.place.get()[at(t) + d] : 0.f);
        }
    }

    // what one level gives to the other: its state, or a linear map of it
    const float* linked(const Matrix& w, const float* state) {
        if (!w.in) return state;
        in_tiles(begin_, end_, [&](auto rows, int t) {
            hrm::product<rows.value>(w, state + at(t), s_.linked.get() + at(t));
        });
        return s_.linked.get();
    }

    // state = layers(state + a + b) of L (0) or H (1), b may be null
    void level(int which, float* state, const float* a, const float* b) {
        float* x = s_.x.get();
        for (size_t i = at(begin_); i < at(end_); ++i) x[i] = state[i] + (b ? a[i] + b[i] : a[i]);
        if (const float* entry = m_.entry(which))
            for (int t = begin_; t < end_; ++t) layer_norm(x + at(t), entry);
        const bool own = which && m_.h_layers;  // without layers of its own, H has those of L
        const int first = own ? m_.l_layers : 0, layers = own ? m_.h_layers : m_.l_layers;
        for (int layer = first; layer < first + layers; ++layer, turn_ ^= 1) {
            const Linear* w = &m_.layers[4 * size_t(layer)];
            for (int t = begin_; t < end_; t += kBlock) project(w[0], t, std::min(kBlock, end_ - t));
            team_.barrier.wait();
            for (int h = 0; h < m_.H; ++h) m_.few(h) ? attend_to_few(h) : attend_to_all(h);
            for (int t = begin_; t < end_; t += kBlock) {
                const int rows = std::min(kBlock, end_ - t);
                add_and_norm(w[1], s_.attended.get() + at(t), m_.D, t, rows, m_.norm(layer, 0));
                feed(w[2], w[3], t, rows, m_.norm(layer, 1));
            }
        }
        std::copy(x + at(begin_), x + at(end_), state + at(begin_));
    }

    void round(const Linear& w, const float* x, int stride, int rows) {
        for (int r = 0; r < rows; ++r)
            for (int d = 0; d < w.in; d += kLanes)
                store(s_.codes.get() + r * w.in + d, rounded(load<Floats>(x + r * stride + d), w.input_scale));
    }

    // Q of these rows to the scratch, K and V to the team
    void project(const Linear& w, int t, int rows) {
        const int D = m_.D;
        round(w, s_.x.get() + at(t), D, rows);
        product(w, s_.codes.get(), s_.wide.get(), rows);
        for (int r = 0; r < rows; ++r) {
            float* row = s_.wide.get() + r * 3 * D;
            if (m_.cos) rotate(row, t + r);
            std::copy_n(row, D, s_.query.get() + at(t + r));
            std::copy_n(row + D, D, team_.keys[turn_].get() + at(t + r));
            std::copy_n(row + 2 * D, D, team_.values[turn_].get() + at(t + r));
        }
    }

    // rotary positions, "rotate half", on the heads of Q and K
    void rotate(float* row, int t) {
        const int dh = m_.D / m_.H, half = dh / 2;
        const float *c = m_.cosines.get() + size_t(t) * half, *s = m_.sines.get() + size_t(t) * half;
        for (int head = 0; head < 2 * m_.H; ++head, row += dh)
            for (int i = 0; i < half; ++i) {
                const float a = row[i], b = row[half + i];
                row[i] = a * c[i] - b * s[i];
                row[half + i] = b * c[i] + a * s[i];
            }
    }

    // A head whose queries see a few keys each (a row, a column, a box): only those are looked at.
    void attend_to_few(int h) {
        const int dh = m_.D / m_.H, count = m_.visible.counts[h], wide = padded(count, kLanes);
        const float *keys = team_.keys[turn_].get() + h * dh, *values = team_.values[turn_].get() + h * dh;
        float* scores = s_.scores.get();
        for (int t = begin_; t < end_; ++t) {
            const int32_t* seen = m_.visible.of(h, t);
            const float* query = s_.query.get() + at(t) + h * dh;
            for (int i = 0; i < count; ++i) {
                Floats products{};
                for (int d = 0; d < dh; d += kLanes)
                    products += load<Floats>(query + d) * load<Floats>(keys + at(seen[i]) + d);
                scores[i] = total(products);
            }
            std::fill(scores + count, scores + wide, kHidden);
            const float inverse = 1.f / softmax(scores, wide);
            for (int d = 0; d < dh; d += kLanes) {
                Floats sum{};
                for (int i = 0; i < count; ++i) sum += scores[i] * load<Floats>(values + at(seen[i]) + d);
                store(s_.attended.get() + at(t) + h * dh + d, sum * inverse);
            }
        }
    }

    void attend_to_all(int h) {
        const int dh = m_.D / m_.H, columns = s_.columns;
        const float* keys = team_.keys[turn_].get() + h * dh;
        for (int t = 0; t < m_.T; ++t)  // each thread for itself: columns of one matrix would share cache lines
            for (int d = 0; d < dh; ++d) s_.keys.get()[d * columns + t] = keys[at(t) + d];
        in_tiles(begin_, end_, [&](auto rows, int t) { attend_rows<rows.value>(h, t); });
    }

    template <int R> void attend_rows(int h, int t) {
        const int dh = m_.D / m_.H, columns = s_.columns;
        const float* query = s_.query.get() + at(t) + h * dh;
        int c = 0;
        for (; c + kPanel <= columns; c += kPanel) score<R, kVectors>(query, c);
        for (; c < columns; c += kLanes) score<R, 1>(query, c);
        float inverse[R];
        for (int r = 0; r < R; ++r) {
            float* row = s_.scores.get() + r * columns;
            std::fill(row + m_.T, row + columns, kHidden);
            inverse[r] = 1.f / softmax(row, columns);
        }
        const float* values = team_.values[turn_].get() + h * dh;
        float* out = s_.attended.get() + at(t) + h * dh;
        int d = 0;
        for (; d + 2 * kLanes <= dh; d += 2 * kLanes) weigh<R, 2>(values + d, inverse, out + d);
        for (; d < dh; d += kLanes) weigh<R, 1>(values + d, inverse, out + d);
    }

    // scores [R, 16 N] of the keys from column c on
    template <int R, int N> void score(const float* query, int c) {
        const int dh = m_.D / m_.H, columns = s_.columns;
        Floats sums[R][N] = {};
        for (int d = 0; d < dh; ++d)
            for (int v = 0; v < N; ++v) {
                const Floats key = load<Floats>(s_.keys.get() + d * columns + c + kLanes * v);
                for (int r = 0; r < R; ++r) sums[r][v] += query[r * m_.D + d] * key;
            }
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < N; ++v) store(s_.scores.get() + r * columns + c + kLanes * v, sums[r][v]);
    }

    // out [R, 16 N] = weights times values
    template <int R, int N> void weigh(const float* values, const float* inverse, float* out) {
        const float* weights = s_.scores.get();
        Floats sums[R][N] = {};
        for (int t = 0; t < m_.T; ++t)
            for (int v = 0; v < N; ++v) {
                const Floats value = load<Floats>(values + at(t) + kLanes * v);
                for (int r = 0; r < R; ++r) sums[r][v] += weights[r * s_.columns + t] * value;
            }
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < N; ++v) store(out + r * m_.D + kLanes * v, sums[r][v] * inverse[r]);
    }

    // exp(score - largest) in place, `columns` whole vectors; returns their sum
    static float softmax(float* row, int columns) {
        Floats most = load<Floats>(row);
        for (int c = kLanes; c < columns; c += kLanes) {
            const Floats x = load<Floats>(row + c);
            most = x > most ? x : most;
        }
        const float largest = greatest(most);
        Floats sum{};
        for (int c = 0; c < columns; c += kLanes) {
            const Floats weight = exponential(load<Floats>(row + c) - largest);
            store(row + c, weight);
            sum += weight;
        }
        return total(sum);
    }

    // x = norm(x + from W); `normal`: of LayerNorm, null: RMSNorm
    void add_and_norm(const Linear& w, const float* from, int stride, int t, int rows, const float* normal) {
        const int D = m_.D;
        round(w, from, stride, rows);
        product(w, s_.codes.get(), s_.wide.get(), rows);
        for (int r = 0; r < rows; ++r) {
            float *x = s_.x.get() + at(t + r), *y = s_.wide.get() + r * D;
            for (int d = 0; d < D; d += kLanes) store(x + d, load<Floats>(x + d) + load<Floats>(y + d));
            normal ? layer_norm(x, normal) : rms_norm(x);
        }
    }

    void rms_norm(float* x) {
        const int D = m_.D;
        Floats squares{};
        for (int d = 0; d < D; d += kLanes) squares += load<Floats>(x + d) * load<Floats>(x + d);
        const float by = 1.f / std::sqrt(total(squares) / D + kEps);
        for (int d = 0; d < D; d += kLanes) store(x + d, load<Floats>(x + d) * by);
    }

    void layer_norm(float* x, const float* normal) {
        const int D = m_.D;
        Floats sum{}, squares{};
        for (int d = 0; d < D; d += kLanes) sum += load<Floats>(x + d);
        const Floats mean = all(total(sum) / D);
        for (int d = 0; d < D; d += kLanes) {
            const Floats apart = load<Floats>(x + d) - mean;
            squares += apart * apart;
        }
        const float by = 1.f / std::sqrt(total(squares) / D + kEps);
        for (int d = 0; d < D; d += kLanes)
            store(x + d, (load<Floats>(x + d) - mean) * by * load<Floats>(normal + d) + load<Floats>(normal + D + d));
    }

    // x = norm(x + (silu(gate) up) W), or norm(x + gelu(up) W)
    void feed(const Linear& w, const Linear& down, int t, int rows, const float* normal) {
        const int F = m_.F;
        float* wide = s_.wide.get();
        round(w, s_.x.get() + at(t), m_.D, rows);
        product(w, s_.codes.get(), wide, rows);
        for (int r = 0; r < rows; ++r)
            for (int f = 0; f < F; f += kLanes) {
                float* row = wide + r * w.out + f;
                store(row, m_.gelu ? gelu(load<Floats>(row)) : silu(load<Floats>(row)) * load<Floats>(row + F));
            }
        add_and_norm(down, wide, w.out, t, rows, normal);
    }

    void heads(const Puzzle& p) {
        const int V = m_.V, wide = padded(V, kLanes), first = m_.T - m_.S;
        for (int t = std::max(begin_, first); t < end_; ++t)
            for (int v = 0; v < V; v += kLanes) {
                Floats sums[4] = {};  // four chains hide the latency of an addition
                for (int d = 0; d < m_.D; d += 4)
                    for (int i = 0; i < 4; ++i)
                        sums[i] += p.z_h_next[at(t) + d + i] * load<Floats>(m_.head.get() + size_t(d + i) * wide + v);
                float row[kLanes];
                store(row, ((sums[0] + sums[1]) + (sums[2] + sums[3])) + load<Floats>(m_.head_bias.get() + v));
                std::copy_n(row, std::min(kLanes, V - v), p.logits + size_t(t - first) * V + v);
            }
        halting(p);
    }

    // q, by the thread that has the first rows
    void halting(const Puzzle& p) {
        if (m_.pooled) team_.barrier.wait();  // until everyone's rows are there
        if (begin_ != 0) return;
        const float* from = p.z_h_next;
        if (m_.pooled) {
            const int D = m_.D;
            float* means = s_.wide.get();
            std::fill_n(means, 2 * D, 0.f);
            for (int t = 0; t < m_.T; ++t)
                for (int d = 0; d < D; ++d) means[d] += p.z_h_next[at(t) + d], means[D + d] += p.z_l_next[at(t) + d];
            for (int d = 0; d < 2 * D; ++d) means[d] /= m_.T;
            from = means;
        }
        for (int i = 0; i < m_.Q; ++i) {
            float sum = m_.bias.get()[i];
            for (int d = 0; d < (m_.pooled ? 2 : 1) * m_.D; ++d) sum += from[d] * m_.halting.get()[d * m_.Q + i];
            p.q[i] = sum;
        }
    }

    int turn_ = 0;  // which of the team's two keys and values come next: threads that share puzzles agree
};

}  // namespace hrm
