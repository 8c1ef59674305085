"""Which paths to train: pure functions of a lattice and of the scores that are known so far.

A strategy is asked afresh after every result and yields all the paths that it wants, known ones included;
so it has no state to save. Every function imported here from a file of this folder can be named under `search`.
"""

from orchestrator.strategies.budgets import budget as budget
from orchestrator.strategies.probing import probe as probe
from orchestrator.strategies.promises import promising as promising
from orchestrator.strategies.races import racing as racing
from orchestrator.strategies.whole import best_predecessor as best_predecessor
from orchestrator.strategies.whole import exhaustive as exhaustive
from orchestrator.strategies.whole import greedy as greedy
from orchestrator.strategies.whole import successive_halving as successive_halving
