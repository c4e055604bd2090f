"""How things look over HTTP."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from .models import Job, Pipeline, ProcessingService, Project


class ProjectSerializer(serializers.ModelSerializer):
    class Meta:
        model = Project
        fields = ("id", "name")


class PipelineSerializer(serializers.ModelSerializer):
    class Meta:
        model = Pipeline
        fields = ("id", "slug", "name", "version")


class ProcessingServiceSerializer(serializers.ModelSerializer):
    status = serializers.CharField(read_only=True)

    class Meta:
        model = ProcessingService
        fields = ("id", "name", "status", "last_seen", "client_info")


class JobSerializer(serializers.ModelSerializer):
    pipeline = serializers.SlugRelatedField("slug", queryset=Pipeline.objects.all())
    # How many of the project's images, the oldest first; left out, all of them.
    limit = serializers.IntegerField(write_only=True, required=False, min_value=1)

    class Meta:
        model = Job
        fields = (
            "id",
            "name",
            "project",
            "pipeline",
            "dispatch_mode",
            "status",
            "progress",
            "created_at",
            "updated_at",
            "last_contact",
            "limit",
        )
        read_only_fields = ("status", "progress", "last_contact")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        user = self.context["request"].user
        project, pipeline = attrs["project"], attrs["pipeline"]
        if not project.members.filter(pk=user.pk).exists():
            raise serializers.ValidationError({"project": "unknown"})
        if not pipeline.projects.filter(pk=project.pk).exists():
            raise serializers.ValidationError({"pipeline": "is not one of this project"})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Job:
        limit = validated_data.pop("limit", None)
        job = Job.objects.create(**validated_data)
        job.images.set(job.project.images.order_by("pk")[:limit])
        return job


class JobNameSerializer(serializers.ModelSerializer):
    """What workers ask for with ``ids_only=1``."""

    pipeline_slug = serializers.SlugRelatedField("slug", source="pipeline", read_only=True)

    class Meta:
        model = Job
        fields = ("id", "pipeline_slug")


class RegisteredPipelineSerializer(serializers.Serializer):
    slug = serializers.SlugField()
    name = serializers.CharField(max_length=200, required=False)
    version = serializers.IntegerField(required=False, min_value=0)


class RegistrationSerializer(serializers.Serializer):
    processing_service_name = serializers.CharField(max_length=200)
    pipelines = RegisteredPipelineSerializer(many=True)
