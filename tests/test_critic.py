"""The critic of the VQ stage: who pays for what, and that it can tell true from drawn."""

import torch

from janus_kit.training.critic import Critic


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes of full contrast, and the same made soft."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(count, 1, 1, 1, generator=generator) * 6
    true = torch.sin(torch.arange(64.0) * 1.2 + phase).expand(count, 3, 64, 64)
    return true, torch.nn.functional.avg_pool2d(true, 3, 1, 1)


def test_the_critics_mistakes_move_the_critic_and_being_found_out_the_painter() -> None:
    critic = Critic()
    true, drawn = pictures(2, 0)
    drawn = drawn.clone().requires_grad_()
    mistakes, found_out = critic.losses(drawn, true)
    mistakes.backward(retain_graph=True)
    assert drawn.grad is None
    assert all(p.grad is not None for p in critic.parameters())
    critic.zero_grad(set_to_none=True)
    found_out.backward()
    assert drawn.grad is not None
    assert drawn.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())


def test_a_critic_learns_to_tell_soft_pictures_from_sharp_ones() -> None:
    torch.manual_seed(0)
    critic = Critic()
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-3)
    for step in range(40):
        true, drawn = pictures(4, step)
        mistakes, _ = critic.losses(drawn, true)
        optimizer.zero_grad()
        mistakes.backward()
        optimizer.step()
    true, drawn = pictures(4, 1000)
    with torch.no_grad():
        assert critic(true).mean() > critic(drawn).mean() + 0.5
        mistakes, found_out = critic.losses(drawn, true)
        assert mistakes < 1.5  # 2 is chance
        assert critic.losses(true, true)[1] < found_out  # a better painter pays less
