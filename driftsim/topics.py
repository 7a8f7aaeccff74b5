"""What the reference workload's prompts are about: infrastructure topics, as in the published study."""

TOPICS: tuple[str, ...] = (
    "DNS", "Kafka", "Redis", "CUDA", "OAuth", "Kubernetes", "PostgreSQL", "TCP congestion control", "TLS", "gRPC",
    "Docker", "Raft consensus", "Elasticsearch", "MapReduce", "GraphQL", "BGP routing", "NVMe storage", "LSM trees",
    "Bloom filters", "WebAssembly", "HTTP/3", "RabbitMQ", "MongoDB", "Apache Spark", "ZooKeeper", "LLVM", "eBPF",
    "IPv6", "Git", "RAID", "Terraform", "Prometheus", "Grafana", "Ansible", "Nginx", "Envoy", "Istio", "Consul",
    "etcd", "Ceph", "object storage", "content delivery networks", "load balancing", "service meshes",
    "message queues", "event sourcing", "database sharding", "database replication", "write-ahead logging",
    "vector databases", "consistent hashing", "circuit breakers", "rate limiting", "blue-green deployment",
    "continuous integration", "feature flags", "distributed tracing", "log aggregation", "serverless functions",
    "virtual machines", "hypervisors", "Linux namespaces", "control groups", "memory paging", "CPU caches",
    "RDMA networking", "GPU virtualization", "zero-trust networking", "certificate authorities", "single sign-on",
)  # fmt: skip
