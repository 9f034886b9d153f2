"""The course's training loop: logistic regression on two clouds of points, in mini-batches.

This file is PyTorch's; tests/test_lecture.py runs it with ``torch`` in its import lines replaced by ``slalom``.
"""

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, Dataset


class Points(Dataset):
    def __init__(self, n=500, d=5):
        rng = np.random.RandomState(42)
        y = rng.rand(n) < 0.4
        x = rng.randn(n, d) + np.outer(y, np.linspace(-1, 1, d))
        self.x = torch.from_numpy(x).float()
        self.y = torch.tensor(y, dtype=torch.float32).view(-1, 1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class LogisticRegression(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.linear = nn.Linear(d, 1)

    def forward(self, x):
        return torch.sigmoid(self.linear(x))


def train(model, loader, epochs):
    criterion = nn.BCELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = ExponentialLR(optimizer, gamma=0.9)
    history = []
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            output = model(x)
            loss = criterion(output, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(x)
        history.append(total / len(loader.dataset))
        scheduler.step()
        print(f"epoch {epoch}: loss {history[-1]:.4f}, next rate {scheduler.get_last_lr()[0]:.6f}")
    return history


def accuracy(model, dataset):
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in DataLoader(dataset, batch_size=64):
            predicted = (model(x) > 0.5).float()
            correct += (predicted == y).sum().item()
    return correct / len(dataset)


if __name__ == "__main__":
    torch.manual_seed(0)
    dataset = Points()
    loader = DataLoader(dataset, batch_size=64, shuffle=True)
    model = LogisticRegression(d=5)
    train(model, loader, epochs=10)
    print(f"accuracy {accuracy(model, dataset):.3f}")
