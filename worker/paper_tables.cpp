#include "worker/paper_tables.h"

namespace smlp {

namespace {

constexpr double M = 1e6, B = 1e9, G = 1e9, T = 1e12;

PaperNumber total(double value, const char* note = "") { return {Counted::parameters, value, note}; }
PaperNumber non_expert(double value, const char* note = "") { return {Counted::non_expert, value, note}; }
PaperNumber expert(double value, const char* note = "") { return {Counted::expert, value, note}; }
PaperNumber macs(double value, const char* note = "") { return {Counted::multiply_adds, value, note}; }

PaperTable operations() {
  return {3,
          "token mixing, one operation, hidden 4096, two sequences of 1024",
          {{"Self-attention, 16 heads", "attention 16", {total(4.198 * M), macs(12.885 * G)}},
           {"Self-attention, 1 head", "attention 1", {total(4.198 * M), macs(12.885 * G)}},
           {"Spatial gating unit, 16 heads", "gate 16", {total(16.798 * M), macs(4.316 * G)}},
           {"Spatial gating unit, 1 head", "gate 1", {total(1.054 * M), macs(4.316 * G)}},
           {"s-MoE, 1 head", "smoe", {total(1.058 * M, "fits 8 H norm parameters an expert"), macs(4.387 * G)}}},
          {"s-MoE: the paper's own definition (one T x T map over the H channels of a token) takes half of the 4.387 G "
           "it prints, for it mixes H = 1024 channels where the spatial gating unit mixes F/2 = 2048.",
           "s-MoE: 1.058 M parameters leave room for T*T + T + 8 H; a norm over the expert's H/32 channels has 2 H/32."}};
}

PaperTable small_sizes() {
  return {4,
          "model sizes, small models (top)",
          {{"Gshard", "small-gshard", {total(3.48 * B)}},
           {"Switch Transformer", "small-switch", {total(3.48 * B)}},
           {"Base Layers", "small-base", {total(3.60 * B)}},
           {"HASH Layers", "small-hash", {total(3.51 * B)}},
           {"sMLP - deterministic", "small-smlp", {total(3.50 * B)}}},
          {"Base Layers and sMLP: the sizes do not equal non-expert + 32 x expert of table 8: 241.79 M + 32 x 100.75 M = "
           "3.47 B, and 258.73 M + 32 x 113.44 M = 3.89 B.",
           "Gshard has twice the experts of Switch (table 5) and one size with it; at equal FLOPs its top-2 routing leaves "
           "fewer sparse blocks, and neither 32 nor 64 experts give 3.48 B.",
           "HASH has no centroids, which are 0.4 M, but is printed 90 M smaller than Base Layers of the same arrangement.",
           "The caption gives the enlarged Switch 2.0 T, its row and table 5 give it 2.3 T."}};
}

PaperTable large_sizes() {
  return {5,
          "scaled-up models",
          {{"Gshard", "large-gshard", {total(9.03 * B), macs(2.0 * T)}},
           {"Switch Transformer", "large-switch", {total(9.03 * B), macs(2.0 * T)}},
           {"Base Layers", "large-base", {total(10.31 * B), macs(2.0 * T)}},
           {"HASH Layers", "large-hash", {total(10.29 * B), macs(2.0 * T)}},
           {"Switch Transformer - Enlarge", "large-switch-enlarged", {total(10.31 * B), macs(2.3 * T)}},
           {"sMLP - deterministic, 22 + 8", "large-smlp", {total(9.41 * B), macs(2.0 * T)}},
           {"sMLP - deterministic, 22 + 7", "large-smlp-table5", {total(9.41 * B), macs(2.0 * T)}}},
          {"The column \"Model Size (M)\" holds billions.",
           "sMLP has 7 sparse and 22 dense layers here, 8 and 20 in table 10; its counts there fit 8 and 22.",
           "No total equals non-expert + 32 x expert: by table 10 Base Layers have 642.6 M and 268.6 M, which make 9.24 B.",
           "Gshard's 64 experts in 7 layers hold about twice what Switch's 32 do, but both are printed as 9.03 B.",
           "Switch with 7 + 7 layers takes 1.78 T, and enlarged to 8 + 8 it takes 2.00 T like Base and HASH Layers of as many; "
           "2.0 T and 2.3 T are printed. Gshard takes 2.26 T.",
           "The FLOPs are 2.0 T here and in tables 2 and 4, 2.125 T in table 10."}};
}

PaperTable small_details() {
  return {8,
          "small models",
          {{"Base Layers", "small-base", {expert(100.75 * M), non_expert(241.79 * M), macs(0.83 * T, "fits 12 dense layers")}},
           {"sMLP - deterministic", "small-smlp", {expert(113.44 * M), non_expert(258.73 * M), macs(0.83 * T)}}},
          {"Base Layers: 12 dense layers are printed; the parameters fit 11, the FLOPs fit 12.",
           "sMLP: table 9 prints the two counts the other way round.",
           "sMLP's expert parameters fit 8 H norm parameters in an sMoE expert; a norm over the expert's H/32 channels "
           "gives 113.35 M."}};
}

PaperTable dense_details() {
  constexpr const char* swapped = "printed in the other row";
  return {9,
          "small dense models",
          {{"Transformer", "dense-transformer", {non_expert(354.76 * M), macs(0.83 * T)}},
           {"gMLP", "dense-gmlp", {non_expert(353.87 * M), macs(0.83 * T)}},
           {"sMLP - deterministic", "dense-smlp",
            {expert(113.44 * M, swapped), non_expert(258.73 * M, swapped), macs(0.83 * T)}}},
          {"sMLP: expert and non-expert parameters are swapped against table 8, which fits.",
           "The batch is 2 here and 4 in table 8, for the same sMLP."}};
}

PaperTable large_details() {
  constexpr const char* swapped = "printed in the other row";
  return {10,
          "large models",
          {{"Base Layers", "large-base", {expert(268.6 * M, swapped), non_expert(642.6 * M, swapped), macs(2.125 * T)}},
           {"sMLP - deterministic, 22 + 8", "large-smlp",
            {expert(277.1 * M, swapped), non_expert(682.6 * M, swapped), macs(2.125 * T)}},
           {"sMLP - deterministic, 20 + 8", "large-smlp-table10",
            {expert(277.1 * M, swapped), non_expert(682.6 * M, swapped), macs(2.125 * T)}}},
          {"The rows \"Expert Parameters\" and \"Non Expert Parameters\" are swapped for both models.",
           "sMLP: 20 dense layers are printed, table 5 prints 22 (and 7 sparse); the counts fit 22 and 8.",
           "Base Layers: 2.125 T is printed; 8 dense and 8 sparse layers take 2.00 T, as tables 2, 4 and 5 have it."}};
}

}  // namespace

const std::vector<PaperTable>& paper_tables() {
  static const std::vector<PaperTable> tables = {operations(),    small_sizes(),   large_sizes(),
                                                 small_details(), dense_details(), large_details()};
  return tables;
}

}  // namespace smlp
