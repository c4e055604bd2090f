"""Makes what one needs to look around: a user with a token, a project, a pipeline and images."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from rest_framework.authtoken.models import Token

from main.models import Image, Job, Pipeline, ProcessingService, Project


class Command(BaseCommand):
    """See the module."""

    help = __doc__

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--images", type=int, default=100)
        parser.add_argument("--user", default="worker")
        parser.add_argument("--project", default="Moths of Vermont")
        parser.add_argument("--pipeline", default="moths")
        parser.add_argument("--service", default="adc (example)")
        parser.add_argument(
            "--job", type=int, help="also make a job of all images, with this number"
        )
        parser.add_argument("--status", default="CREATED", help="that job's")

    def handle(self, **options: Any) -> None:
        user, _ = get_user_model().objects.get_or_create(username=options["user"])
        token, _ = Token.objects.get_or_create(user=user)
        project, _ = Project.objects.get_or_create(name=options["project"])
        project.members.add(user)
        slug = options["pipeline"]
        pipeline, _ = Pipeline.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
        pipeline.projects.add(project)
        service, _ = ProcessingService.objects.get_or_create(name=options["service"])
        service.projects.add(project)
        pipeline.processing_services.add(service)
        missing = options["images"] - project.images.count()
        Image.objects.bulk_create(
            Image(project=project, url=f"https://images.example.org/{slug}/{n:08}.jpg")
            for n in range(missing)
        )
        made = {"token": token.key, "project": project.pk, "pipeline": pipeline.slug}
        if options["job"]:
            job = Job.objects.create(
                pk=options["job"], project=project, pipeline=pipeline, status=options["status"]
            )
            job.images.set(project.images.order_by("pk")[: options["images"]])
            made["job"] = job.pk
        self.stdout.write(json.dumps(made))
