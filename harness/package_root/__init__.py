"""mapflow: where does information flow in a VideoLLM?"""
