"""The speed of the paper's models, beside what the card can do and beside PyTorch."""
import statistics

from gpu_checks.checks import LOOK_SECONDS, ROOT
from gpu_checks.programs import Failure, NotHere, json_in

PAPER = ROOT / "examples" / "paper"
SECONDS = dict(smlp=200, bench=100, compile=300, torch=240)
TURNS = 3
SMLP_TOKENS, SMLP_TOKENS_PER_SECOND, SMLP_SHARE, PEER_RATIO = 524_288, 192_000, 0.5, 1.2
AS_TORCH = "cluster.deterministic=false"  # its attention adds up in any order
OTHER_ENDS = ("library", "own_gelu", "own")  # of cluster.product_ends, than the default
NO_MEMORY = ("bytes of memory left", "out of memory")  # of the sentence in tensor/cuda/device.cpp; the runtime's words
SMALL_JOB = ("model.dense_blocks=2", "model.width=64", "model.hidden=128", "model.context=32", "model.vocabulary=256", "model.experts=4",
             "train.global_batch=8", "train.micro_batch=4")
SMALL_PEER = ("--blocks", 2, "--width", 64, "--hidden", 128, "--heads", 4, "--context", 32, "--vocabulary", 256)


class SpeedParts:
    def bench(self, what, job, *settings, seconds):
        all_settings = (f"cluster.device={self.device}", "cluster.ranks=1", "cluster.expert_ranks=1", "train.precision=bf16",
                        "model.dropout=0", *settings, *(SMALL_JOB if self.rehearsal else ()))
        words = [word for setting in all_settings for word in ("--set", setting)]
        found = json_in(self.smlp("bench", what, "--job", PAPER / job, *words, "--json", seconds=seconds))
        self.record.keep(part=self.part, bench=what, job=job, settings=all_settings, found=found)
        return found

    def say_step(self, name, found):
        phases = sorted(found["phases"].items(), key=lambda phase: -phase[1])
        self.say("measured", f"{name}: {found['tokens_per_second']:,.0f} tokens/s, {found['step_seconds']:.4f} s a step of {found['steps']}, "
                             f"share {found['share']:.3f} of {found['matmul_flops_per_second'] / 1e12:.1f} TFLOP/s, on {found['device']}")
        self.say("", "of a step: " + ", ".join(f"{phase} {seconds:.4f} s" for phase, seconds in phases if seconds >= 5e-5))

    def largest_that_fits(self, *sizes):
        """With micro-batches of so many sequences: the larger, the less often weights are moved."""
        for size in sizes:
            try:
                return self.bench("step", "small-smlp.toml", "train.global_batch=512", f"train.micro_batch={size}",
                                  "routing.group_sequences=4", seconds=SECONDS["smlp"])
            except Failure as error:
                if not any(words in error.output for words in NO_MEMORY) or size == sizes[-1]:
                    raise
                self.say("measured", f"a micro-batch of {size} does not fit: {error}")

    def judge_speed(self, sound, words):
        self.judge(sound or self.rehearsal, words + (" (not judged in a rehearsal)" if self.rehearsal else ""))

    def kernels(self, job, micro_batch):
        found = self.bench("kernels", job, f"train.micro_batch={micro_batch}", seconds=SECONDS["bench"])
        self.say("measured", f"kernels: products {found['matmul_flops_per_second'] / 1e12:.1f} TFLOP/s, memory "
                             f"{found['memory_bytes_per_second'] / 1e12:.2f} TB/s; those of dense blocks {found['step_seconds_dense']:.4f} s a "
                             f"micro-batch, {found['floor_seconds_dense']:.4f} s at these rates")
        return found

    def speed_smlp(self):
        found = {}
        with self.check("sMLP, 32 experts"):
            found = self.largest_that_fits(64, 32, 16)
            tokens, rate, share = found.get("tokens_per_step", 0), found["tokens_per_second"], found["share"]
            self.say_step(f"sMLP, 32 experts, micro-batch {found.get('micro_batch')}", found)
            self.judge_speed(tokens == SMLP_TOKENS, f"{tokens:,.0f} tokens a step, {SMLP_TOKENS:,} asked for")
            self.judge_speed(rate >= SMLP_TOKENS_PER_SECOND, f"{rate:,.0f} tokens/s, {SMLP_TOKENS_PER_SECOND:,} asked for")
            self.judge_speed(share >= SMLP_SHARE, f"{share:.3f} of the product rate, {SMLP_SHARE} asked for")
        with self.check("kernels"):
            self.kernels("small-smlp.toml", found.get("micro_batch", 32))

    def has_torch(self):
        asks = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
        return self.programs.run(self.python, "-c", asks, seconds=LOOK_SECONDS, ours=False).code == 0

    def peer(self, model, kind, *options):
        words = [ROOT / "scripts" / "torch_peers.py", model, "--device", self.device, "--sequences", 16,
                 "--cache", self.caches / f"torch-{model}.cache", *options, *(SMALL_PEER if self.rehearsal else ())]
        outcome = self.programs.run(self.python, *words, seconds=SECONDS[kind], cwd=self.folder, ours=False)
        outcome.name = "torch_peers.py"
        found = json_in(outcome.demand())
        self.record.keep(part=self.part, peer=model, options=options, found=found)
        return found

    def say_peer(self, name, found):
        self.say("measured", f"{name}: {found['tokens_per_second']:,.0f} tokens/s, {found['step_seconds']:.4f} s a step; "
                             f"{found['synchronised_step_seconds']:.4f} s where each is waited for")

    def prepare_peer(self, model):
        """What torch.compile makes, before anything is timed; or what it made elsewhere."""
        with self.check("PyTorch compiles"):
            found = self.peer(model, "compile", "--compile-only")
            source = " from --caches" if found["from_cache"] else ""
            self.say("measured", f"PyTorch {found['torch']} compiled {model}{source}: the first step took "
                                 f"{found['first_step_seconds']:.0f} s")
            for words in found["differs"].values():
                self.say("", f"PyTorch's {model} differs: {words}")

    def tell_kernels(self, model):
        with self.check("PyTorch's kernels"):
            found = self.peer(model, "torch", "--profile", "--timings", 1)
            if "attention" in found:
                self.say("measured", f"PyTorch's attention: {found['attention']}")
            for name, kernel in list(found["kernels"].items())[:8]:
                self.say("", f"{kernel['seconds'] * 1e3:9.3f} ms in {kernel['calls']:5} calls of {name[:90]}")

    def tell_pure_bf16(self, model, ours):
        with self.check("PyTorch, pure bf16"):
            found = self.peer(model, "compile", "--pure-bf16")
            self.say_peer("PyTorch with weights and moments in bf16", found)
            if ours:
                ratio = statistics.median(ours) / found["tokens_per_second"]
                self.say("measured", f"{ratio:.2f} x that (not judged: it is less work than ours)")

    def dense_step(self, model, *settings):
        return self.bench("step", f"dense-{model}.toml", "train.global_batch=16", "train.micro_batch=16", AS_TORCH, *settings,
                          seconds=SECONDS["bench"])

    def beside_torch(self, model):
        ours, theirs, torch = [], [], self.has_torch()
        if torch:
            self.prepare_peer(model)
        for turn in range(1, TURNS + 1):
            with self.check(f"turn {turn}"):
                found = self.dense_step(model)
                ours.append(found["tokens_per_second"])
                self.say_step(f"turn {turn}, {model}", found)
            if torch:
                with self.check(f"turn {turn}, PyTorch"):
                    found = self.peer(model, "torch")
                    theirs.append(found["tokens_per_second"])
                    self.say_peer(f"turn {turn}, PyTorch", found)
        with self.check("beside PyTorch"):
            if not torch:
                raise NotHere(f"{self.python} has no torch")
            self.judge_ratio(ours, theirs)
        return ours

    def tell_ends(self, model):
        """What the libraries and own kernels make of the ends of products, which the job chooses."""
        with self.check("by whom products end"):
            for ends in OTHER_ENDS:
                self.say_step(f"{model}, cluster.product_ends={ends}", self.dense_step(model, f"cluster.product_ends={ends}"))

    def tell_default(self, model):
        """What it costs to get the same bits each time, which PyTorch does not promise."""
        with self.check("the same bits each time"):
            self.say_step(f"{model}, cluster.deterministic=true", self.dense_step(model, "cluster.deterministic=true"))

    def more_of_torch(self, model, ours):
        """What explains the ratio; last, for it may take minutes."""
        if self.has_torch():
            self.tell_kernels(model)
            self.tell_pure_bf16(model, ours)

    def judge_ratio(self, ours, theirs):
        if not ours or not theirs:
            raise Failure(f"there are {len(ours)} figures of ours and {len(theirs)} of PyTorch")
        mine, other = statistics.median(ours), statistics.median(theirs)
        self.judge_speed(mine / other >= PEER_RATIO, f"{mine:,.0f} tokens/s, PyTorch {other:,.0f}: {mine / other:.2f} x, {PEER_RATIO} x asked for")

    def speed_gmlp(self):
        ours = self.beside_torch("gmlp")
        with self.check("kernels"):
            self.kernels("dense-gmlp.toml", 16)
        self.tell_ends("gmlp")
        self.more_of_torch("gmlp", ours)

    def speed_transformer(self):
        ours = self.beside_torch("transformer")
        with self.check("cuDNN"):
            found = self.kernels("dense-transformer.toml", 16)
            if self.rehearsal:
                raise NotHere("a rehearsal computes attention on the CPU")
            sentence = found.get("attention", "smlp does not say how attention is computed")
            self.judge(sentence.startswith("attention is computed by cuDNN"), f"cuDNN: {sentence}")
        self.tell_default("transformer")
        self.tell_ends("transformer")
        self.more_of_torch("transformer", ours)
