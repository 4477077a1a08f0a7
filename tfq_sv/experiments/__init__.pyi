from . import baselines as baselines
from . import benchmark as benchmark
from . import reproduction as reproduction
from .benchmark import Benchmark as Benchmark
from .benchmark import benchmark_figure as benchmark_figure
from .benchmark import benchmark_files as benchmark_files
from .benchmark import benchmark_network as benchmark_network
from .benchmark import benchmark_table as benchmark_table
