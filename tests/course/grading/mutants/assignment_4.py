"""Wrong answers that students give: question, what went wrong, (old, new) in the solution, its points, its hint.

Those of 4.4 are refused before the budget is spent, or learn nothing and so cost no training: what a bad recipe earns
is the straight line of `contest.share_of_points`, which tests/course/grading/test_contest.py looks at.
"""

HAND_ON = '''return self.net.state_dict()

    def load(self, weights):
        """Take over what another entry has learned."""
        self.net.load_state_dict(weights)'''
IDLE = "def step(self, images, labels, progress):\n        {}\n\n    def weights(self):"

MUTANTS = [
    ("4.1", "too wide", ("dim, depth = 64, 4", "dim, depth = 112, 4"), 3, "numbers, and the budget allows 300,000"),
    ("4.1", "3×3 kernels", ("kernel_size=7", "kernel_size=3"), 3, "no depthwise convolution of 7×7 or more.*3×3"),
    ("4.1", "the blocks forgotten", ("self.blocks(self.stem(x))", "self.stem(x)"), 2, "no gradient reaches blocks.*unused in forward"),
    ("4.1", "the stem cut off", ("self.blocks(self.stem(x))", "self.blocks(self.stem(x).detach())"), 3, "no gradient reaches stem"),
    ("4.1", "a kernel that does not count", ("self.blocks(self.stem(x))", "(lambda s: s + 0 * self.blocks(s))(self.stem(x))"), 3,
     "could be anything"),
    ("4.1", "uint8 as it comes", ("images.float()", "images"), 0, "your code raised"),
    ("4.1", "a mean over the batch", ("(x - x.mean((2, 3), keepdim=True))", "(x - x.mean((0, 2, 3), keepdim=True))"), 3,
     "others when it comes alone"),
    ("4.1", "dropout that eval() does not know", ("self.norm(x.mean((2, 3)))", "F.dropout(self.norm(x.mean((2, 3))))"), 3,
     "others when it comes alone"),
    ("4.1", "the same for all", ("self.norm(x.mean((2, 3)))", "self.norm(x.mean((0, 2, 3)))[None].expand(len(x), -1)"), 0,
     "the same for every image"),
    ("4.1", "twelve classes", ("nn.Linear(dim, 10)", "nn.Linear(dim, 12)"), 0, r"should have shape \(4, 10\)"),
    ("4.1", "positions left in", ("self.norm(x.mean((2, 3)))", "self.norm(x.flatten(2).mT)"), 0, "should have shape"),
    ("4.1", "probabilities", ("self.norm(x.mean((2, 3))))", "self.norm(x.mean((2, 3)))).softmax(1)"), 0, "return the logits"),
    ("4.2", "the seed unused", ("torch.manual_seed(seed)", "pass"), 4, "two learners with the same seed"),
    ("4.2", "another seed", ("torch.manual_seed(seed)", "torch.manual_seed(0)"), 4, "learners with different seeds begin with the same"),
    ("4.2", "gradients kept", ("self.optimizer.zero_grad()", "pass"), 4, "backward ADDS"),
    ("4.2", "no step", ("self.optimizer.step()", "pass"), 0, "all weights are what they were"),
    ("4.2", "a rate of 0", ("6e-3 * warm * fall", "0.0 * warm * fall"), 0, "all weights are what they were"),
    ("4.2", "another network's optimizer", ("AdamW(self.net.parameters()", "AdamW(Net().parameters()"), 0, "all weights are what they were"),
    ("4.2", "the rate not written", ('group["lr"] = 6e-3', "rate = 6e-3"), 4, "moves the weights as far"),
    ("4.2", "a warm-up and nothing else", ("warm * fall", "warm"), 4, "moves the weights as far"),
    ("4.2", "the rate ends at half", ("warm * fall", "warm * (1 + fall) / 2"), 4, "let it end at a quarter"),
    ("4.2", "the labels of others", ("(images), labels,", "(images), labels.roll(1),"), 3, "another target than the labels"),
    ("4.2", "labels unused", ("(images), labels,", "(images), torch.zeros_like(labels),"), 3, "another target than the labels"),
    ("4.2", "uphill", ("loss = F.cross", "loss = -F.cross"), 3, "another sign"),
    ("4.2", "changed in place", ("self.net.train()", "images.floor_divide_(2)"), 4, "changed the images itself"),
    ("4.2", "one size", ("self.net(images), labels", "self.net(images.view(16, 3, 32, 32)), labels"), 4, "your code raised"),
    ("4.3", "nothing loaded", ("self.net.load_state_dict(weights)", "pass"), 3, "did not get into its network"),
    ("4.3", "loaded into another one", ("self.net.load_state_dict(weights)", "Net().load_state_dict(weights)"), 3, "did not get into its network"),
    ("4.3", "buffers lost", (HAND_ON, HAND_ON.replace("self.net.state_dict()", "dict(self.net.named_parameters())").replace("(weights)", "(weights, strict=False)")),
     3, "A running mean, which is a buffer"),
    ("4.3", "buffers lost, and missed", ("self.net.state_dict()", "dict(self.net.named_parameters())"), 3, "Missing key"),
    ("4.3", "no evaluation mode", ("self.net.eval()", "pass"), 2, "Is the network in evaluation mode"),
    ("4.3", "class numbers", ("return self.net(images)", "return self.net(images).argmax(1)"), 0, r"scores of shape \(40, 10\)"),
    ("4.3", "always the same", ("return self.net(images)", "return torch.zeros(len(images), 10)"), 0, "the same scores for every image"),
    ("4.3", "compared with the others", ("return self.net(images)", "return (lambda s: s - s.mean(0))(self.net(images))"), 3, "asked alone"),
    ("4.3", "learns while it answers", ("self.net.eval()", "self.step(images, torch.zeros(len(images)).long(), 0.3)\n        self.net.eval()"), 0,
     "scores when it is asked alone|not handed on|changed what weights"),
    ("4.3", "a list", ("return self.net.state_dict()", "return list(self.net.state_dict().values())"), 0, "a dictionary, name → tensor"),
    ("4.3", "a number among the tensors", ("return self.net.state_dict()", "return {**self.net.state_dict(), 'rate': 6e-3}"), 0,
     "should hold tensors alone"),
    ("4.4", "more than the budget", ("return self.net.state_dict()", 'return {**self.net.state_dict(), "more": torch.zeros(300_000)}'), 0,
     "the budget allows 300,000"),
    ("4.4", "64 bits", ("return self.net.state_dict()", 'return {**self.net.state_dict(), "more": torch.zeros(150_001).double()}'), 0,
     "the budget allows 300,000"),
    ("4.4", "a fixed start", ("    def weights(self):", "    def __init__(self, seed):\n        super().__init__(0)\n\n    def weights(self):"), 0,
     "entries of two different seeds begin with the same weights"),
    ("4.4", "compared with the others", ("return self.net(images)", "return (lambda s: s - s.mean(0))(self.net(images))"), 0, "asked alone"),
    ("4.4", "not a number", ("return self.net(images)", "return self.net(images) / 0 * 0"), 0, "not finite"),
    ("4.4", "class numbers", ("return self.net(images)", "return self.net(images).argmax(1)"), 0, "scores of shape"),
    ("4.4", "never learns", ("def weights(self):", IDLE.format("pass")), 0, "accuracy 1?[0-9]\\.[0-9]%; 1,600 images seen"),
    ("4.4", "known to its process alone", (HAND_ON, """Entry.kept = self.net.state_dict()
        return {"nothing": torch.zeros(1)}

    def load(self, weights):
        self.net.load_state_dict(Entry.kept)

    def step(self, images, labels, progress):
        pass"""), 0, "kept"),
]  # fmt: skip
